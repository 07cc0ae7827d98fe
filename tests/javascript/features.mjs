// What the clients do besides single calls: raw answers, pages, helpers by id, endings, retries, errors.
const MODEL = "tiny-qvq";

const asked = ({ text, ...others }) => ({ model: MODEL, input: text, ...others });
const chat = ({ text, ...others }) => ({
  model: MODEL,
  messages: [{ role: "user", content: text }],
  ...others,
});

async function format(name) {
  const helpers = await import(`${name}/helpers/zod`);
  const { z } = await import("zod");
  const shape = z.object({ count: z.number().int() });
  return {
    text: { format: helpers.zodTextFormat(shape, "count") },
    response_format: helpers.zodResponseFormat(shape, "count"),
  };
}

// What the helper ends with, and the items of a response that did not complete.
export async function ending(client, given) {
  const stream = client.responses.stream(asked(given));
  const { status, error, incomplete_details, output, output_text } = await stream.finalResponse();
  return { status, error, incomplete_details, output, output_text };
}

// The events of the helper by id, from a number on.
export async function followed(client, given) {
  const { id } = await client.responses.create({ ...asked(given), background: true });
  const stream = client.responses.stream({ response_id: id, starting_after: 4 });
  const numbers = [];
  for await (const event of stream) numbers.push(event.sequence_number);
  const { status } = await stream.finalResponse();
  return { numbers, status };
}

// The raw answer, and the parsed one with its request id.
export async function raw(client, given) {
  const response = await client.responses.create(asked(given)).asResponse();
  const { data, request_id } = await client.responses.create(asked(given)).withResponse();
  return {
    type: response.headers.get("content-type"),
    json: await response.json(),
    status: data.status,
    requestId: request_id,
  };
}

// The roles of the input, page by page.
export async function items(client, { turns }) {
  const input = turns.map((role) => ({ role, content: role }));
  const { id } = await client.responses.create({ input, background: true });
  const roles = [];
  const query = { limit: 1, order: "asc", include: ["message.input_image.image_url"] };
  for await (const item of client.responses.inputItems.list(id, query)) roles.push(item.role);
  return roles;
}

// Files of each kind that Node has, and their pages.
export async function files(client, { purpose }, { toFile }) {
  const sources = [new File(["12"], "試.bin"), await toFile(Buffer.from("3"), "b"), await toFile(Buffer.from("4"))];
  const made = [];
  for (const file of sources) made.push(await client.files.create({ file, purpose }));
  const listed = [];
  let page = await client.files.list({ purpose, limit: 2, order: "asc" });
  for (;;) {
    listed.push(...page.data.map((file) => file.id));
    if (!page.hasNextPage()) break;
    page = await page.getNextPage();
  }
  for (const file of made) await client.files.delete(file.id);
  return { made, listed };
}

// Each null that a program can send.
export async function nulls(client, { responses, chats }) {
  const empty = (names) => Object.fromEntries(names.map((name) => [name, null]));
  const response = await client.responses.create({ ...empty(responses), input: "How many?" });
  const completion = await client.chat.completions.create({ ...empty(chats), messages: chat({ text: "?" }).messages });
  return { status: response.status, reason: completion.choices[0].finish_reason };
}

// What becomes of an answer in JSON that was cut off, in both APIs.
export async function half(client, given, { name }) {
  const { text, response_format } = await format(name);
  const { LengthFinishReasonError } = await import(`${name}/error`);
  const { max_tokens, ...question } = given;
  const response = await client.responses.parse({ ...asked(question), max_output_tokens: max_tokens, text });
  let raised = false;
  try {
    await client.chat.completions.parse({ ...chat(given), response_format });
  } catch (error) {
    raised = error instanceof LengthFinishReasonError;
  }
  return { parsed: response.output_parsed, kinds: response.output.map((item) => item.type), raised };
}

// The usage that the helper of chats has seen.
export async function counted(client, given) {
  const options = { stream_options: { include_usage: true } };
  const stream = client.chat.completions.stream({ ...chat(given), ...options });
  const { usage } = await stream.finalChatCompletion();
  return { usage, total: await stream.totalUsage() };
}

const shown = (error) => {
  const { status, code, param, type, requestID } = error;
  return { kind: error.constructor.name, status, code, param, type, requestID };
};

// The error that the stream of a failed chat ends with.
export async function broken(client, given, { APIError }) {
  try {
    for await (const _ of await client.chat.completions.create({ ...chat(given), stream: true }));
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    return shown(error);
  }
  return null;
}

// The errors of calls, each with options of the client and of the call.
export async function errors(client, { calls }, { APIError }) {
  const seen = [];
  for (const { options, method, path, ...call } of calls) {
    try {
      await client.withOptions(options ?? {})[method](path, call);
      seen.push(null);
    } catch (error) {
      if (!(error instanceof APIError)) throw error;
      seen.push(shown(error));
    }
  }
  return seen;
}

// The refusal of a key with few requests a minute, and what a client with retries gets after it.
export async function limited(client, { key }, { RateLimitError }) {
  const impatient = client.withOptions({ apiKey: key });
  let refusal = null;
  for (let call = 0; call < 200 && refusal === null; call++) {
    try {
      await impatient.models.list();
    } catch (error) {
      if (!(error instanceof RateLimitError)) throw error;
      refusal = { ...shown(error), wait: Number(error.headers.get("retry-after")) };
    }
  }
  const models = await impatient.withOptions({ maxRetries: 5 }).models.list();
  return { refusal, models: models.data.length };
}
