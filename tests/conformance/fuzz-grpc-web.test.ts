import { describeFuzz } from "./fuzz-face.ts";

describeFuzz("grpc-web");
