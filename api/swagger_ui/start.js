// Shows the API. The page may be served below a path prefix, which the document does not know.
const base = new URL(".", document.baseURI).href.replace(/\/$/, "");

// Swagger UI has both color schemes; the browser or the system chooses.
const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

fetch("openapi.json")
  .then((response) => response.json())
  .then((spec) => {
    SwaggerUIBundle({
      spec: { ...spec, servers: [{ url: base }] },
      dom_id: "#api",
      deepLinking: true,
      docExpansion: "list",
      defaultModelsExpandDepth: -1,
      displayRequestDuration: true,
      filter: true,
      // No file of ours is sent to a validator elsewhere.
      validatorUrl: null,
      onComplete: () => document.body.setAttribute("data-ready", "true"),
    });
  });
