/** The notebooks that travel in the package, and their titles. */
export const EXAMPLES: Record<string, string> = {
  "00_tour": "A GPT assistant from scratch, cell by cell",
  "01_prompting": "Every technique of prompting, in a cell",
  "02_rag": "Answers from documents",
  "03_thinking": "Tokens to think",
};
