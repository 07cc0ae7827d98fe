// Chat completions: whole, in chunks, by the stream helper, parsed, and given up.

const fields = ({ text, image, ...others }) => ({
  model: "tiny-qvq",
  messages: [
    {
      role: "user",
      content: [
        { type: "image_url", image_url: { url: image } },
        { type: "text", text },
      ],
    },
  ],
  ...others,
});

export async function whole(client, given) {
  return client.chat.completions.create(fields(given));
}

export async function chunks(client, given) {
  const seen = [];
  for await (const chunk of await client.chat.completions.create({ ...fields(given), stream: true }))
    seen.push(chunk);
  return seen;
}

export async function helper(client, given) {
  const deltas = [];
  const stream = client.chat.completions.stream(fields(given));
  stream.on("content", (delta) => deltas.push(delta));
  const final = await stream.finalChatCompletion();
  return { final, content: deltas.join("") };
}

export async function parsed(client, given, { name }) {
  const { zodResponseFormat } = await import(`${name}/helpers/zod`);
  const { z } = await import("zod");
  const response_format = zodResponseFormat(z.object({ count: z.number().int() }), "count");
  const answer = await client.chat.completions.parse({ ...fields(given), response_format });
  return answer.choices[0].message.parsed;
}

// Leaves after the first chunk; returns the id of the completion.
export async function abandoned(client, given) {
  const stream = await client.chat.completions.create({ ...fields(given), stream: true });
  for await (const chunk of stream) {
    stream.controller.abort();
    return chunk.id;
  }
}
