// The page as the local server gives it.
import { begin } from "./main.js";
import { server, use } from "./source.js";

use(server);
begin();
