import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { says, toolUse, turnOf } from "#platform/testing/model-server/turn.ts";
import { type MeshUnderTest, startMesh } from "../mesh-under-test.ts";
import { Conversation, SETTINGS, type ToldTurn } from "./conversation.ts";

/** About 1 200 tokens of something that fills a conversation. */
const pages = (about: string) => `${about}: ${"and so on, line after line, as long as it takes. ".repeat(100)}`;

function compacted({ events }: ToldTurn) {
  const told = events.filter(({ type }) => type === "context_compacted");
  assert.equal(told.length, 1, "compacted once");
  const { summary, tokens_before, tokens_after, messages } = told[0].context_compacted;
  assert.ok(Number(tokens_after) < Number(tokens_before) && messages > 0);
  return summary as string;
}

describe("a long session", () => {
  let mesh: MeshUnderTest;
  before(async () => {
    mesh = await startMesh("embedded", SETTINGS);
  });
  after(() => mesh.stop());
  afterEach(() => mesh.model.reset());

  test("of customer support: the problem and what was promised survive, and people are asked at the end", async () => {
    const tools = ["todo", "current_time", "escalate_to_human"];
    const talk = await Conversation.begin(mesh, {
      name: "Support",
      adapter: "support",
      tools,
      compaction_config: { keep_turns: 1 },
    });
    await talk.say(pages("My kettle from order 4711 leaks"), says("I am sorry. Does it leak at the lid?"));
    await talk.say(pages("No, at the bottom"), says("Please dry it and try again."));
    await talk.say(pages("It still leaks"), says("Then it is broken. I promise an answer by Friday."));
    const summary =
      "<summary>Order 4711: the kettle leaks at the bottom; drying did not help. Promised: answer by Friday.</summary>";
    const turn = await talk.say(
      pages("What now"),
      says(summary),
      turnOf(toolUse("escalate_to_human", { reason: "Broken kettle, order 4711", priority: "normal" })),
      says("A person was asked."),
    );
    assert.match(compacted(turn), /^Order 4711/);
    assert.match(talk.sent(2), /customer service conversation/, "the preset's question for a summary");
    assert.deepEqual(
      turn.types.filter((type) => ["context_compacted", "escalated", "run_completed"].includes(type)),
      ["context_compacted", "escalated", "run_completed"],
    );
    const next = await talk.say("When will I hear from you?", says("By Friday."));
    assert.equal(next.answer, "By Friday.");
    assert.match(talk.sent(), /My kettle from order 4711/, "the original request");
    assert.match(talk.sent(), /Promised: answer by Friday/);
    assert.doesNotMatch(talk.sent(), /Does it leak at the lid/);
    assert.match(await talk.read(), /Does it leak at the lid/, "history is never destroyed");
  });

  test("of coding: files, changes and errors survive within one run of many tools", async () => {
    const talk = await Conversation.begin(mesh, {
      name: "Coder",
      tools: ["calculator", "todo"],
      compaction_config: { preset: "coding_assistant", keep_turns: 1 },
    });
    const look = (file: string) =>
      turnOf({ type: "text", text: pages(`I read ${file}`) }, toolUse("calculator", { expression: "1 + 1" }));
    const turn = await talk.say(
      "Make the build green. It fails in parser.ts.",
      look("parser.ts"),
      look("lexer.ts"),
      look("main.ts"),
      look("build.log"),
      says("<summary>parser.ts line 12: off by one, fixed. Still to do: run the tests.</summary>"),
      says("The build is green again."),
    );
    assert.match(compacted(turn), /parser\.ts line 12/);
    assert.match(talk.sent(1), /programming session/);
    assert.match(talk.sent(), /Make the build green/);
    assert.match(talk.sent(), /I read build\.log/, "the last turn stays as it was");
    assert.doesNotMatch(talk.sent(), /I read lexer\.ts/);
    assert.equal(turn.types.filter((type) => type === "tool_call_completed").length, 4);
    assert.equal(turn.answer, "The build is green again.");
  });

  test("of data analysis: sources and findings survive two compactions", async () => {
    const talk = await Conversation.begin(mesh, {
      name: "Analyst",
      tools: ["calculator"],
      compaction_config: { preset: "data_analysis", keep_turns: 1 },
    });
    await talk.say(pages("Table sales has the columns day, shop, amount"), says("Understood."));
    const mean = toolUse("calculator", { expression: "4200 / 12" });
    await talk.say(pages("What is the mean by month of 4200"), turnOf(mean), says("It is 350."));
    await talk.say(pages("And which shop is best"), says("Shop 3."));
    const first = await talk.say(
      pages("Why"),
      says("<summary>sales(day, shop, amount); mean 350 a month; shop 3 is best.</summary>"),
      says("It has the longest hours."),
    );
    assert.match(compacted(first), /mean 350/);
    assert.match(talk.sent(1), /data analysis session/);
    const second = await talk.say(
      pages("Draw it"),
      says("<summary>sales(day, shop, amount); mean 350; shop 3 best by its hours.</summary>"),
      says("Here is the chart."),
    );
    assert.match(compacted(second), /by its hours/);
    assert.match(talk.sent(1), /mean 350 a month/, "the second summary is made with the first in view");
    await talk.say("Thanks", says("You are welcome."));
    assert.match(talk.sent(), /shop 3 best by its hours/);
    assert.doesNotMatch(talk.sent(), /mean 350 a month/);
    assert.match(talk.sent(), /Table sales has the columns/);
  });
});
