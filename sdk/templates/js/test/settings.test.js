import assert from "node:assert";
import { test } from "node:test";
import { readSettings } from "../src/settings.js";

test("a header is enough", () => {
  assert.deepEqual(readSettings('{"header": "x-team"}'), { header: "x-team", values: [], stamp: "x-checked-by" });
});

test("mistakes are refused with a pointer", () => {
  for (const [text, pointer] of [
    ["{}", "/header"],
    ['{"header": "two words"}', "/header"],
    ['{"header": "x-team", "stamp": 1}', "/stamp"],
    ['{"header": "x-team", "values": "blue"}', "/values"],
    ['{"header": "x-team", "colour": "blue"}', "/colour"],
  ]) {
    assert.throws(() => readSettings(text), (thrown) => thrown.startsWith(`${pointer}: `), text);
  }
});
