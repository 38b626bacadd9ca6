// The page to try the REST API: Swagger UI over /openapi.json. It asks nobody but this server.
import SwaggerUI from "swagger-ui-dist/swagger-ui-es-bundle.js";
import "swagger-ui-dist/swagger-ui.css";
import "./style.css";

SwaggerUI({
  url: "/openapi.json",
  domNode: document.getElementById("api"),
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  tryItOutEnabled: true,
  // Elsewhere it would be asked whether the document is valid.
  validatorUrl: null,
});
