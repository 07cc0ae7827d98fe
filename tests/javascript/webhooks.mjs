// Webhooks: what receivers do with a message, and (from version 7 on) the endpoints.

export async function unwrapped(client, { body, headers, secret }) {
  const event = await client.webhooks.unwrap(body, headers, secret);
  return { type: event.type, id: event.data.id };
}

export async function endpoints(client, { url }) {
  const types = await client.webhooks.eventTypes.list();
  const created = await client.webhooks.create({
    name: "from JavaScript",
    url,
    event_types: ["response.completed", "batch.completed"],
  });
  const updated = await client.webhooks.update(created.id, { event_types: ["response.failed"] });
  const rotated = await client.webhooks.rotateSecret(created.id);
  const retrieved = await client.webhooks.retrieve(created.id);
  const listed = [];
  for await (const one of client.webhooks.list({ limit: 1 })) listed.push(one.id);
  const deleted = await client.webhooks.delete(created.id);
  return { types: types.data, created, updated, rotated, retrieved, listed, deleted };
}
