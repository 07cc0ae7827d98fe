// Models, and what the clients show of answers and errors in general.

export async function listed(client) {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  return names;
}

export async function retrieved(client, { id }) {
  const { data, request_id } = await client.models.retrieve(id).withResponse();
  return { id: data.id, requestId: request_id };
}

// The error that a call of the client ends with, as its user sees it.
export async function refused(client, { method, path, body }, { APIError }) {
  try {
    await client[method](path, body === undefined ? {} : { body });
  } catch (error) {
    if (!(error instanceof APIError)) throw error;
    const { status, code, param, type, message, requestID } = error;
    return { kind: error.constructor.name, status, code, param, type, message, requestID };
  }
  return null;
}
