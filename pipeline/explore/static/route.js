// Addresses inside the page: #/, #/image/ROW, #/image/ROW/Y/X, #/group/KEY.

export function go(hash) {
  if (location.hash === hash) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = hash;
}

export function route() {
  const [, kind = "", ...rest] = location.hash.split("/");
  if (kind === "image" && /^\d+$/.test(rest[0] ?? "")) {
    const place = rest.length >= 3 ? { y: Number(rest[1]) || 0, x: Number(rest[2]) || 0 } : null;
    return { kind, row: Number(rest[0]), place };
  }
  if (kind === "group") {
    try {
      return { kind, key: decodeURIComponent(rest.join("/")) };
    } catch {
      return { kind: "overview" };
    }
  }
  return { kind: "overview" };
}
