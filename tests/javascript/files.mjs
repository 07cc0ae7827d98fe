// Files and batches.
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function stored(client, { text, filename, purpose }, { toFile }) {
  const file = await toFile(Buffer.from(text), filename);
  const created = await client.files.create({
    file,
    purpose,
    expires_after: { anchor: "created_at", seconds: 3600 },
  });
  const processed = await client.files.waitForProcessing(created.id);
  const content = await (await client.files.content(created.id)).text();
  const listed = [];
  for await (const one of client.files.list({ purpose, limit: 1 })) listed.push(one.id);
  const deleted = await client.files.delete(created.id);
  return { created, processed, content, listed, deleted };
}

async function uploaded(client, lines, toFile) {
  const text = lines.map((line) => JSON.stringify(line)).join("\n");
  return client.files.create({ file: await toFile(Buffer.from(text), "b.jsonl"), purpose: "batch" });
}

async function ended(client, id) {
  for (;;) {
    const batch = await client.batches.retrieve(id);
    if (["completed", "failed", "expired", "cancelled"].includes(batch.status)) return batch;
    await pause(200);
  }
}

const lines = async (client, id) =>
  id === null
    ? null
    : (await (await client.files.content(id)).text()).trim().split("\n").map((line) => JSON.parse(line));

export async function batch(client, { endpoint, requests }, { toFile }) {
  const input = await uploaded(client, requests, toFile);
  const created = await client.batches.create({
    input_file_id: input.id,
    endpoint,
    completion_window: "24h",
    metadata: { from: "javascript" },
  });
  const listed = [];
  for await (const one of client.batches.list({ limit: 1 })) listed.push(one.id);
  const batch = await ended(client, created.id);
  return {
    created,
    listed,
    batch,
    output: await lines(client, batch.output_file_id ?? null),
    errors: await lines(client, batch.error_file_id ?? null),
  };
}

export async function cancelled(client, { endpoint, requests }, { toFile }) {
  const input = await uploaded(client, requests, toFile);
  const created = await client.batches.create({
    input_file_id: input.id,
    endpoint,
    completion_window: "24h",
  });
  const first = await client.batches.cancel(created.id);
  return { first, batch: await ended(client, created.id) };
}
