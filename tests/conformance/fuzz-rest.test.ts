import { describeFuzz } from "./fuzz-face.ts";

describeFuzz("rest");
