// The filter's configuration, checked: what is wrong with it is thrown as a text that begins with a pointer to the field.
// It knows nothing of the gateway, so that `npm test` can run it.

const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

export function readSettings(text) {
  const given = text.trim() === "" ? {} : parse(text);
  if (given === null || typeof given !== "object" || Array.isArray(given)) {
    throw "an object is needed";
  }
  const { header, values = [], stamp = "x-checked-by", ...unknown } = given;
  for (const field of Object.keys(unknown)) {
    throw `/${field}: unknown field; there are header, values and stamp`;
  }
  for (const [field, name] of [["header", header], ["stamp", stamp]]) {
    if (typeof name !== "string" || !HEADER_NAME.test(name)) {
      throw `/${field}: the name of a header is needed`;
    }
  }
  if (!Array.isArray(values) || !values.every((value) => typeof value === "string")) {
    throw "/values: a list of texts is needed";
  }
  return { header, values, stamp };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw `it is not JSON: ${error.message}`;
  }
}
