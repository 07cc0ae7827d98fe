// Runs one scenario with an official client and prints its result as JSON.
//
//   node harness.mjs MODULE SCENARIO ARGUMENTS
//
// MODULE is a file of this folder, SCENARIO a function that it exports: it takes the client, the arguments, and the
// package of the client. The environment names the package (LONGLOOK_TEST_CLIENT), the service, and the key.
const [module, scenario, given] = process.argv.slice(2);
const name = process.env.LONGLOOK_TEST_CLIENT;
const library = await import(name);
const client = new library.default({
  baseURL: process.env.LONGLOOK_TEST_URL,
  apiKey: process.env.LONGLOOK_TEST_KEY,
  maxRetries: 0,
});

const scenarios = await import(`./${module}`);
const result = await scenarios[scenario](client, JSON.parse(given), { ...library, name });
process.stdout.write(JSON.stringify(result ?? null));
