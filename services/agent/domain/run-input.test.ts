import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { ContentPartSchema } from "#gen/agentmesh/common/v1/content_pb.ts";
import { AppError } from "#platform/rpc/errors.ts";
import { parseRunInput, type RunInputRequest } from "./run-input.ts";

const BLANKS = [" ", "\n\t", "\u00a0", "\u3000", "\ufeff", "\u1680 \u2028"];

function request(message: string, ...texts: string[]): RunInputRequest {
  const attachments = texts.map((text) => create(ContentPartSchema, { part: { case: "text", value: { text } } }));
  return { message, attachments, sessionId: "", agentId: "", requestId: "", endUserId: "" };
}

describe("the input of a run", () => {
  test("of white space only is refused, whatever space that is", () => {
    for (const blank of BLANKS) {
      for (const input of [request(blank), request(blank, blank)]) {
        assert.throws(
          () => parseRunInput(input),
          (error) =>
            error instanceof AppError && error.reason === "FIELD_INVALID" && error.violations[0]?.field === "message",
        );
      }
    }
  });

  test("keeps its white space when there is more, in the message or in what is attached", () => {
    assert.equal(parseRunInput(request(" x\n")).message, " x\n");
    assert.equal(parseRunInput(request(" ", "x")).message, " ");
  });
});
