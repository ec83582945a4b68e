import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(js.configs.recommended, ...tseslint.configs.recommended, {
  files: ["src/**/*.ts"],
  rules: {
    "@typescript-eslint/no-non-null-assertion": "off", // said where the layout has just put it
    "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
    "no-control-regex": "off", // tokens hold control characters, which are made visible
    "max-len": ["error", { code: 120, ignoreUrls: true }],
    "no-nested-ternary": "off",
  },
});
