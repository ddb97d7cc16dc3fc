// The legend of keys. What they do stands in main.js and in the views.

export const KEYS = [
  ["Groups", [
    [["↑", "↓"], "choose the one before or after"],
    [["Enter"], "open it"],
    [["N"], "name it; the same name makes two one"],
    [["M"], "merge it into another"],
    [["S"], "split it in two"],
    [["X"], "not one thing: show four parts"],
    [["1", "… 9"], "give it a class that is there"],
    [["C"], "change its colour"],
    [["Del"], "remove its name"],
    [["A"], "show it alone"],
    [[",", "."], "fewer or more groups"],
  ]],
  ["Images", [
    [["←", "→"], "the one before or after"],
    [["I"], "open the marked one"],
    [["/"], "find images by name"],
    [["[", "]"], "groups fainter or stronger"],
    [["P"], "the picture alone, and back"],
    [["L"], "outlines"],
    [["H"], "similarity on pointing"],
    [["F"], "find similar patches in all images"],
    [["+", "−", "0"], "closer, farther, fit"],
    [["Shift + arrows"], "move over patches"],
    [["Space"], "click the patch"],
  ]],
  ["Teach", [
    [["T"], "click patches to teach a class"],
    [["1", "… 9"], "choose a class"],
    [["W"], "where next: the patch that would teach most; again to skip it"],
  ]],
  ["Everything", [
    [["Ctrl Z"], "undo"],
    [["Ctrl Shift Z"], "redo"],
    [["E"], "take the results along"],
    [["D"], "light or dark"],
    [["O", "Esc"], "all images"],
    [["?"], "this legend"],
  ]],
];
