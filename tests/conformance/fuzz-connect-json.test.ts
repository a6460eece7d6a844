import { describeFuzz } from "./fuzz-face.ts";

describeFuzz("connect-json");
