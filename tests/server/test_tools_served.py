"""The same tools against a model behind a server: `%gpt serve` takes no `tools`, so they are told in words."""

from jupyter_gpt.prompting.tools.act import toolset_for


def loud(text: str) -> str:
    """Says it loudly."""
    return text.upper()


def test_react_through_a_server(gpt, tiny_model, monkeypatch):
    tiny_model(gpt, "noise", chat=True, context=2048)
    server = gpt.serve(port=0)
    monkeypatch.setenv("NOISE_KEY", server.token)
    try:
        far = gpt.endpoint("far", server.url, "noise", key_env="NOISE_KEY")
        assert toolset_for(far, loud, {}).native
        done = gpt.prompt("How loud?", model="far", tools=[loud], max_tokens=20, max_calls=4)
        assert done.remote
        [run] = done.trace["children"]
        assert "takes no tool calls: they are written in the text instead" in run["note"]
        assert "loud(text: string): Says it loudly." in run["children"][-1]["children"][0]["prompt"]
        assert "taken as they are" in run["children"][-1]["children"][1]["note"]  # noise ignores the form
    finally:
        server.stop()
