// The page as one file: the same views over what the file holds, without a server.
import { embedded } from "./embedded.js";
import { begin } from "./main.js";
import { use } from "./source.js";

use(embedded(JSON.parse(document.getElementById("content").textContent)));
begin();
