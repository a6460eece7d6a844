import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { MAX_TEXT, maskJson, maskText } from "./mask.ts";
import { isSensitiveKey, MASK_PATTERNS } from "./mask-patterns.ts";
import { Secret } from "./secret.ts";

const ID26 = "01k9zabcdefghjkmnpqrstvwxy";
const API_KEY = `am_live_${ID26}_${"a1B2".repeat(10)}xyz_1a2b3c`;

describe("maskText", () => {
  const cases: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
    "card numbers": [
      ["4111111111111111", "[CARD_NUMBER]"],
      ["4111 1111-1111 1111.", "[CARD_NUMBER]."],
      ["卡号6222021234567890，谢谢", "卡号[CARD_NUMBER]，谢谢"],
      ["卡6222021234567890123号", "卡[CARD_NUMBER]号"],
      ["amex 3782 822463 10005", "amex [CARD_NUMBER]"],
      ["６２２２０２１２３４５６７８９０", "[CARD_NUMBER]"],
    ],
    "ID cards": [
      ["110101199003071234", "[ID_CARD]"],
      ["身份证11010119900307123X请核对", "身份证[ID_CARD]请核对"],
      ["号码是11010119900307123x", "号码是[ID_CARD]"],
      ["110101 19900307 1234", "[ID_CARD]"],
    ],
    "phone numbers": [
      ["13812345678", "[PHONE]"],
      ["请打13812345678找我", "请打[PHONE]找我"],
      ["电话：１３８１２３４５６７８", "电话：[PHONE]"],
      ["+86 138-1234-5678", "[PHONE]"],
      ["8613812345678", "[PHONE]"],
      ["call +1 (415) 555-2671 now", "call [PHONE] now"],
    ],
    "e-mail addresses": [
      ["write to zhang.san+a@example.com.", "write to [EMAIL]."],
      ["邮箱zhang@example.com谢谢", "邮箱[EMAIL]谢谢"],
      ["张三@例子.公司", "[EMAIL]"],
      ["josé.g@x.co.uk", "[EMAIL]"],
      [`${"a".repeat(300)}@example.com`, "[EMAIL]"],
    ],
    "keys and tokens": [
      [`key ${API_KEY}!`, "key [API_KEY]!"],
      ["密钥sk-ant-api03-Abc_def-ghi0123456789jkl结束", "密钥[API_KEY]结束"],
      ["sk-abcdefghijklmnopqrst", "[API_KEY]"],
      ["pk_live_abcdefghijklmnopqrst", "[API_KEY]"],
      ["api_abcdefghijklmnopqrst", "[API_KEY]"],
      ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "[API_KEY]"],
      ["AKIAIOSFODNN7EXAMPLE", "[API_KEY]"],
      ["Bearer abc123def456", "Bearer [TOKEN]"],
      ["eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1In0.c2ln", "[TOKEN]"],
      ["Authorization: Basic dXNlcjpwYXNz\r\nHost: x", "Authorization: [TOKEN]\r\nHost: x"],
      ["-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----", "[PRIVATE_KEY]"],
    ],
    "passwords in addresses, assignments and quoted bodies": [
      ["postgres://mesh:p@ss@db:5432/mesh", "postgres://[CREDENTIALS]@db:5432/mesh"],
      ["GET /x?api_key=abc&page=2", "GET /x?api_key=[redacted]&page=2"],
      ["password='a b c' next", "password=[redacted] next"],
      ['{"password":"hun\\"ter2","a":1}', '{"password":"[redacted]","a":1}'],
      ["{ clientSecret: 'hunter2' }", '{ clientSecret: "[redacted]" }'],
      ['"{\\"token\\":\\"hunter2\\"}"', '"{\\"token\\":"[redacted]"\\"}"'],
    ],
  };
  for (const [what, pairs] of Object.entries(cases)) {
    test(`replaces ${what}`, () => {
      for (const [text, masked] of pairs) assert.equal(maskText(text), masked);
    });
  }

  test("leaves ordinary text, our ids, times and numbers alone", () => {
    for (const text of [
      "用户问：今天是2026年11月22日，价格12345元",
      `request for ten_${ID26} run_${ID26}`,
      "trace 4bf92f3577b34da6a3ce929d0e0e4736 span 00f067aa0ba902b7",
      "b6f0c1de-1234-4234-8234-1234567890ab",
      "2026-11-22T18:50:00.123+0800 took 1731234567890 ms",
      "sin(1) = 0.8414709848078965 and 5+12345678",
      "Unexpected token 'a', \"abc\" is not valid JSON",
      "AGENTMESH_SECRET: expected 32 bytes in base64",
      "Bearer authentication is required",
      "input_tokens=12 max_tokens: 4096 risk-free-market-analysis-report",
      "https://example.com/@user?q=1",
    ]) {
      assert.equal(maskText(text), text);
    }
  });

  test("changes nothing when it runs again", () => {
    const piece = fc.constantFrom(...Object.values(cases).flatMap((pairs) => pairs.map(([text]) => text)));
    const texts = fc.array(fc.oneof(piece, fc.string({ unit: "binary" }), fc.constantFrom(" ", "=", ":", '"', "中")));
    fc.assert(
      fc.property(texts, (parts) => {
        const once = maskText(parts.join(""));
        assert.equal(maskText(once), once);
      }),
      { numRuns: 500 },
    );
  });

  test("finds a secret between any CJK text, spaces or punctuation", () => {
    const around = fc.string({ unit: fc.constantFrom(..."中文字ひらカナ한글，。：；！（）「」 \n,;!"), maxLength: 20 });
    const secrets = [
      "13812345678",
      "4111111111111111",
      "11010119900307123X",
      "a.b@example.com",
      API_KEY,
      "sk-a1b2c3d4e5f6g7h8i9j0",
    ];
    fc.assert(
      fc.property(around, fc.constantFrom(...secrets), around, (before, secret, after) => {
        const masked = maskText(before + secret + after);
        assert.ok(!masked.includes(secret));
        assert.ok(masked.startsWith(before) && masked.endsWith(after));
      }),
    );
  });

  test("cuts long text without showing a piece of a secret at the cut", () => {
    for (let before = MAX_TEXT - 120; before < MAX_TEXT + 1_200; before += 7) {
      const masked = maskText(`${" ".repeat(before)}${API_KEY}${" ".repeat(3_000)}`);
      assert.ok(!masked.includes("am_live"), `at ${before}`);
      assert.ok(masked.length <= MAX_TEXT + 1);
      assert.ok(masked.endsWith("…"));
    }
  });

  test("takes time in proportion to the text, whatever is repeated", () => {
    const repeated = [
      "a",
      "1",
      "1 ",
      "a.",
      "a@",
      "@",
      "eyJ",
      "sk-",
      "bearer ",
      'token="',
      "password:'",
      "://",
      "+1",
      "中",
      "中.@",
      '\\"',
    ];
    repeated.push("-----BEGIN PRIVATE KEY-----", "authorization: ", 'secret:\\"', "1234 ", "=", "a1_", "0.");
    for (const unit of repeated) {
      const text = unit.repeat(Math.ceil(400_000 / unit.length));
      const started = performance.now();
      maskText(text, text.length);
      // A quadratic pattern takes minutes here; the bound only tells the two apart.
      assert.ok(performance.now() - started < 5_000, JSON.stringify(unit));
    }
  });

  test("has a hint on no pattern that would hide a match", () => {
    for (const [text] of Object.values(cases).flat()) {
      for (const { name, pattern, hint } of MASK_PATTERNS) {
        pattern.lastIndex = 0;
        if (pattern.test(text)) assert.ok(hint?.test(text) ?? true, `${name}: ${text}`);
        pattern.lastIndex = 0;
      }
    }
  });
});

describe("isSensitiveKey", () => {
  test("knows credentials by the end of the name, and leaves counts alone", () => {
    const sensitive = [
      "password",
      "X-Api-Key",
      "client_secret",
      "refreshToken",
      "Set-Cookie",
      "Authorization",
      "apiKey",
    ];
    const harmless = ["input_tokens", "token_count", "tool", "secretary", "key", "author"];
    for (const name of sensitive) assert.equal(isSensitiveKey(name), true, name);
    for (const name of harmless) assert.equal(isSensitiveKey(name), false, name);
  });
});

describe("maskJson", () => {
  test("masks keys, nested texts, numbers and fields named like credentials", () => {
    const value = {
      list: ["a@b.com", { "c@d.com": 1 }],
      phone: 13812345678,
      tokens: 12,
      password: "hunter2",
      apiKey: { inner: "x" },
      flags: { token: true, secret: null },
      held: new Secret("hunter2"),
    };
    assert.deepEqual(maskJson(value), {
      list: ["[EMAIL]", { "[EMAIL]": 1 }],
      phone: "[PHONE]",
      tokens: 12,
      password: "[redacted]",
      apiKey: "[redacted]",
      flags: { token: true, secret: null },
      held: "[redacted]",
    });
  });

  test("keeps of an error its type, message, stack, code and causes, masked, and nothing else", () => {
    const cause = new Error("for a@b.com");
    const error = Object.assign(new TypeError("sk-abcdefghijklmnopqrst", { cause }), {
      code: "E1",
      detail: "Key (email)=(secret thing)",
      config: { headers: { cookie: "x" } },
    });
    const masked = maskJson(error) as { stack: string; cause: { message: string } };
    assert.deepEqual(Object.keys(masked), ["type", "message", "stack", "code", "cause"]);
    assert.equal(masked.cause.message, "for [EMAIL]");
    assert.match(masked.stack, /^TypeError: \[API_KEY\]\n/);
  });

  test("gives JSON for any value, whatever is in it", () => {
    fc.assert(
      fc.property(
        fc.anything({
          withBigInt: true,
          withDate: true,
          withMap: true,
          withSet: true,
          withTypedArray: true,
          withNullPrototype: true,
        }),
        (value) => {
          JSON.stringify({ value: maskJson(value) });
        },
      ),
    );
  });

  test("survives cycles, depth, size, throwing getters and proxies", () => {
    const circular: Record<string, unknown> = {};
    circular["self"] = circular;
    assert.deepEqual(maskJson(circular), { self: "[circular]" });
    let deep: unknown = "end";
    for (let i = 0; i < 10_000; i++) deep = [deep];
    assert.match(JSON.stringify(maskJson(deep)), /too deep/);
    const wide = maskJson(Array.from({ length: 100_000 }, (_, i) => ({ i }))) as unknown[];
    assert.ok(wide.length <= 500);
    const hostile = {
      get boom() {
        throw new Error("no");
      },
    };
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    assert.deepEqual(maskJson({ hostile, proxy, bytes: new Uint8Array(3) }), {
      hostile: "[unreadable]",
      proxy: "[unreadable]",
      bytes: "[3 bytes]",
    });
    const polluted = maskJson(JSON.parse('{"__proto__":{"admin":true}}')) as { admin?: boolean };
    assert.equal(polluted.admin, undefined);
  });
});
