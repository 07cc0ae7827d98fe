// Runs the AI SDK: text, stream, and a schema, with both providers.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [baseURL, apiKey, model] = process.argv.slice(2);
const require = createRequire(`${process.env.LONGLOOK_TOOLS_JAVASCRIPT}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const { generateObject, generateText, jsonSchema, streamText } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const compatible = createOpenAICompatible({
  name: "longlook", baseURL, apiKey, supportsStructuredOutputs: true,
})(model);
const responses = createOpenAI({ baseURL, apiKey })(model);
const schema = jsonSchema({
  type: "object", properties: { count: { type: "integer" } }, required: ["count"], additionalProperties: false,
});
const prompt = "How many?";
const whole = await generateText({ model: compatible, prompt });
const stream = await streamText({ model: compatible, prompt }).text;
const typed = await generateObject({ model: compatible, prompt, schema });
const untyped = await generateObject({ model: responses, prompt, output: "no-schema" });
const other = await generateText({ model: responses, prompt });
const otherTyped = await generateObject({ model: responses, prompt, schema });
console.log(JSON.stringify({
  text: whole.text,
  reasoning: whole.reasoningText,
  stream,
  structured: typed.object,
  object: untyped.object,
  responses: other.text,
  structured_responses: otherTyped.object,
}));
