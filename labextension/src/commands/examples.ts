/** The notebooks that travel in the package, and their titles. */
export const EXAMPLES: Record<string, string> = {
  "00_tour": "A GPT assistant from scratch, cell by cell",
  "01_prompting": "Every technique of prompting, in a cell",
  "03_thinking": "Tokens to think",
  "06_tools_and_agents": "Tools and agents",
  "07_retrieval": "Retrieval: load the working memory",
  "08_constrained": "Constrained prompting",
  "09_real_model": "A real model, honestly",
};
