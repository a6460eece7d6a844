import { describeFuzz } from "./fuzz-face.ts";

describeFuzz("connect-binary");
