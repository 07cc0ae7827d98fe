// Runs the AI SDK with both providers: `openai` over Responses, and `openai-compatible` over chat completions.
import fs from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [baseURL, apiKey, model, file] = process.argv.slice(2);
const require = createRequire(`${process.env.LONGLOOK_TOOLS_JAVASCRIPT}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { generateObject, generateText, jsonSchema, Output, streamText } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const chat = (key = apiKey) =>
  createOpenAICompatible({ name: "longlook", baseURL, apiKey: key, supportsStructuredOutputs: true });
const responses = (key = apiKey) => createOpenAI({ baseURL, apiKey: key });
const schema = jsonSchema({
  type: "object", properties: { count: { type: "integer" } }, required: ["count"], additionalProperties: false,
});
const prompt = "How many?";
const summary = { openai: { reasoningSummary: "auto", forceReasoning: true } };

function turn(text) {
  return { role: "user", content: [{ type: "text", text }, { type: "file", mediaType: "image/png", data: fs.readFileSync(file) }] };
}

const turns = [turn(prompt), { role: "assistant", content: "4" }, turn("And how many here?")];

async function refused(options) {
  try {
    await generateText({ prompt, maxRetries: 0, ...options });
  } catch (error) {
    return error.message;
  }
  throw new Error("It was accepted.");
}

async function ofProvider(provider) {
  const asked = { model: provider(model), maxRetries: 0 };
  const whole = await generateText({ ...asked, prompt, providerOptions: summary });
  const stream = streamText({ ...asked, prompt, providerOptions: summary });
  const object = streamText({ ...asked, prompt, output: Output.object({ schema }) });
  const first = await generateText({ ...asked, messages: [turn(prompt)], providerOptions: summary });
  const short = await generateText({ ...asked, prompt, maxOutputTokens: 16 });
  return {
    text: whole.text,
    trace: whole.reasoningText,
    usage: whole.usage,
    stream: await stream.text,
    stream_trace: await stream.reasoningText,
    structured: (await generateObject({ ...asked, prompt, schema })).object,
    output: (await generateText({ ...asked, prompt, output: Output.object({ schema }) })).output,
    stream_output: await object.output,
    choice: (await generateText({ ...asked, prompt, output: Output.choice({ options: ["a", "b"] }) })).output,
    image: first.text,
    // With `openai` over Responses, its own messages are references to stored items.
    following: (await generateText({ ...asked, messages: [turn(prompt), ...first.response.messages, turn("And here?")] })).text,
    second_turn: (await generateText({ ...asked, messages: turns })).text,
    short: short.finishReason,
  };
}

const ofResponses = await ofProvider(responses());
const named = Object.entries(ofResponses).map(([name, value]) => [`responses_${name}`, value]);
console.log(JSON.stringify({
  ...await ofProvider(chat()),
  ...Object.fromEntries(named),
  wrong_key: await refused({ model: responses("wrong")(model) }),
  wrong_model: await refused({ model: responses()("wrong") }),
  refused: await refused({ model: chat()(model), frequencyPenalty: 1 }),
  object: (await generateText({ model: responses()(model), prompt, output: Output.json() })).output,
}));
