// Responses: in the background, streamed, resumed, parsed, cancelled, deleted.
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const ENDED = ["completed", "failed", "cancelled", "incomplete"];

const fields = ({ text, image, ...others }) => ({
  model: "tiny-qvq",
  input: [
    {
      role: "user",
      content: [
        { type: "input_text", text },
        { type: "input_image", image_url: image, detail: "auto" },
      ],
    },
  ],
  ...others,
});

async function ended(client, id) {
  for (;;) {
    const response = await client.responses.retrieve(id);
    if (ENDED.includes(response.status)) return response;
    await pause(100);
  }
}

export async function foreground(client, given) {
  const response = await client.responses.create(fields(given));
  return { response, text: response.output_text };
}

export async function background(client, given) {
  const created = await client.responses.create({ ...fields(given), background: true });
  const response = await ended(client, created.id);
  const items = [];
  for await (const item of client.responses.inputItems.list(created.id, { limit: 1 })) items.push(item);
  return { created, response, text: response.output_text, items };
}

// The same events at creation, from the start, and from the middle.
export async function streamed(client, given) {
  const live = [];
  const stream = await client.responses.create({ ...fields(given), background: true, stream: true });
  for await (const event of stream) live.push(event);
  const id = live[0].response.id;
  const again = [];
  for await (const event of await client.responses.retrieve(id, { stream: true })) again.push(event);
  const after = Math.floor(live.length / 2);
  const rest = [];
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: after }))
    rest.push(event);
  return { live, again, rest, after, response: await client.responses.retrieve(id) };
}

export async function helper(client, given) {
  const texts = [];
  const stream = client.responses.stream(fields(given));
  stream.on("response.output_text.delta", (event) => texts.push(event.delta));
  const final = await stream.finalResponse();
  const replayed = await client.responses.stream({ response_id: final.id }).finalResponse();
  return { final, replayed, text: texts.join("") };
}

export async function parsed(client, given, { name }) {
  const { zodTextFormat } = await import(`${name}/helpers/zod`);
  const { z } = await import("zod");
  const format = zodTextFormat(z.object({ count: z.number().int() }), "count");
  const response = await client.responses.parse({ ...fields(given), text: { format } });
  return response.output_parsed;
}

// Zod describes these by a format and a pattern.
export async function formatted(client, given, { name }) {
  const { zodTextFormat, zodResponseFormat } = await import(`${name}/helpers/zod`);
  const { z } = await import("zod");
  const shape = z.object({
    day: z.iso.date(),
    paid: z.iso.datetime().nullable(),
    from: z.iso.datetime({ offset: true }),
    number: z.uuid(),
    by: z.email(),
    host: z.union([z.ipv4(), z.ipv6()]),
  });
  const format = zodTextFormat(shape, "formatted");
  const response = await client.responses.parse({ ...fields(given), text: { format } });
  const chat = await client.chat.completions.parse({
    model: "tiny-qvq",
    messages: [{ role: "user", content: given.text }],
    response_format: zodResponseFormat(shape, "formatted"),
  });
  return [response.output_parsed, chat.choices[0].message.parsed];
}

// Zod 3, and parts with ids of Zod 4: the client writes the terms of earlier versions of JSON Schema for them.
export async function reused(client, given, { name }) {
  const { zodTextFormat, zodResponseFormat } = await import(`${name}/helpers/zod`);
  const { z: z3 } = await import("zod/v3");
  const { z: z4 } = await import("zod");
  const address = z3.object({
    street: z3.string().nullable(),
    "house number with a name of many characters": z3.number().nullable(),
    kinds: z3.array(z3.enum(["home", "work"])).nullable(),
  });
  const invoice = z3.object({
    invoice_address_of_the_customer: address,
    delivery_addresses: z3.array(address),
    former: address.nullable(),
  });
  const point = z4.object({ x: z4.number() }).meta({ id: "Point", title: "A point" });
  const line = z4.object({ from: point, to: point, by: z4.array(point), last: point.nullable() });
  const parsed = [];
  for (const shape of [invoice, line]) {
    const { output_parsed } = await client.responses.parse({
      ...fields(given),
      text: { format: zodTextFormat(shape, "a_long_name_of_the_answer") },
    });
    const chat = await client.chat.completions.parse({
      model: "tiny-qvq",
      messages: [{ role: "user", content: given.text }],
      response_format: zodResponseFormat(shape, "a_long_name_of_the_answer"),
    });
    parsed.push([output_parsed, chat.choices[0].message.parsed]);
  }
  return parsed;
}

// What the helper makes of a response that is cancelled while it runs, and of a second call.
export async function cancelled(client, given) {
  const stream = client.responses.stream({ ...fields(given), background: true });
  let id = null;
  stream.on("response.reasoning_text.delta", () => {
    if (id !== null) return;
    id = "requested";
    client.responses.cancel(created);
  });
  let created;
  stream.on("response.created", (event) => (created = event.response.id));
  const final = await stream.finalResponse();
  const again = await client.responses.cancel(created);
  return { final, again, retrieved: await client.responses.retrieve(created) };
}

export async function deleted(client, given, { NotFoundError }) {
  const { id } = await client.responses.create(fields(given));
  await client.responses.delete(id);
  try {
    await client.responses.retrieve(id);
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error;
    return { status: error.status, code: error.code };
  }
}

export async function counted(client, given) {
  return client.responses.inputTokens.count(fields(given));
}

// Only a header names the key: the client's own option has no header name.
export async function repeated(client, given) {
  const options = { headers: { "Idempotency-Key": given.key } };
  const { key, ...others } = given;
  const first = await client.responses.create({ ...fields(others), background: true }, options);
  const second = await client.responses.create({ ...fields(others), background: true }, options);
  return [first.id, second.id];
}
