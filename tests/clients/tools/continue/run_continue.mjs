// Runs the adapter with which Continue speaks to OpenAI's API: chat completions, whole and streamed.
import fs from "node:fs";
import { constructLlmApi } from "@continuedev/openai-adapters";

const [apiBase, apiKey, model, file] = process.argv.slice(2);
const signal = new AbortController().signal;
const url = `data:image/png;base64,${fs.readFileSync(file, "base64")}`;
const adapter = (key) => constructLlmApi({ provider: "openai", apiBase, apiKey: key });

function turn(text, ...images) {
  const parts = images.map((image) => ({ type: "image_url", image_url: { url: image } }));
  return { role: "user", content: [{ type: "text", text }, ...parts] };
}

async function whole(messages, options = {}, key = apiKey) {
  const body = { model, messages, stream: false, max_tokens: 400, ...options };
  return (await adapter(key).chatCompletionNonStream(body, signal)).choices[0].message;
}

async function streamed(messages) {
  const seen = { stream: "", stream_trace: "", usage: null };
  const body = { model, messages, stream: true, max_tokens: 400, stream_options: { include_usage: true } };
  for await (const chunk of adapter(apiKey).chatCompletionStream(body, signal)) {
    seen.stream += chunk.choices[0]?.delta.content ?? "";
    seen.stream_trace += chunk.choices[0]?.delta.reasoning_content ?? "";
    seen.usage = chunk.usage ?? seen.usage;
  }
  return seen;
}

async function refused(options, key) {
  try {
    await whole([turn("How many?")], options, key);
  } catch (error) {
    return error.message;
  }
  throw new Error("It was accepted.");
}

const schema = {
  type: "object", properties: { count: { type: "integer" } }, required: ["count"], additionalProperties: false,
};
const format = { type: "json_schema", json_schema: { name: "count", strict: true, schema } };
const answer = await whole([turn("How many?")]);
const turns = [turn("How many?", url), { role: "assistant", content: "4" }, turn("And how many here?", url)];
console.log(JSON.stringify({
  text: answer.content,
  trace: answer.reasoning_content,
  ...await streamed([turn("How many?")]),
  structured: JSON.parse((await whole([turn("How many?")], { response_format: format })).content),
  image: (await whole([turn("How many?", url)])).content,
  second_turn: (await whole(turns)).content,
  models: (await adapter(apiKey).list()).map((one) => one.id),
  wrong_key: await refused({}, "wrong"),
  wrong_model: await refused({ model: "wrong" }),
  refused: await refused({ frequency_penalty: 1 }),
}));
