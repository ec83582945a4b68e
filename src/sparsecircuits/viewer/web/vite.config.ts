import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { defineConfig } from "vite";

/** Writes down which sources the page was built from; a test compares it with the sources that are there. */
function stamp() {
  return {
    name: "stamp",
    closeBundle() {
      const found = ["src", "public"]
        .flatMap((folder) => readdirSync(folder, { recursive: true, withFileTypes: true }))
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`);
      const hash = createHash("sha256");
      for (const name of [...found, "package-lock.json", "vite.config.ts"].sort())
        hash.update(`${name}\n`).update(readFileSync(name));
      writeFileSync("../static/sources.sha256", `${hash.digest("hex")}\n`);
    },
  };
}

// One script and one style sheet: the server sends them as files, the offline page holds them inline.
export default defineConfig({
  plugins: [stamp()],
  publicDir: "public",
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    cssCodeSplit: false,
    modulePreload: false,
    rollupOptions: {
      input: "src/main.ts",
      output: { format: "iife", entryFileNames: "app.js", assetFileNames: "app[extname]", inlineDynamicImports: true },
    },
  },
  worker: { format: "iife" },
});
