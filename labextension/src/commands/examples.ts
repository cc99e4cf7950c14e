/** The notebooks that travel in the package, and their titles. */
export const EXAMPLES: Record<string, string> = {
  "00_tour": "State of GPT, executable: the tour",
  "01_pretraining": "Pretraining",
  "02_base_models": "Base models",
  "03_sft": "Supervised finetuning",
  "04_rlhf": "Reinforcement learning from human feedback",
  "05_thinking": "Tokens to think",
  "06_tools_and_agents": "Tools and agents",
  "07_retrieval": "Retrieval: load the working memory",
  "08_constrained": "Constrained prompting",
  "09_real_model": "A real model, honestly",
  "10_recommendations": "Default recommendations",
  reference: "Reference",
};
