"""`%gpt config endpoint` and `%gpt serve`, with a real session of an empty folder."""

import re

import pytest


@pytest.fixture
def gpt(gpt):
    yield gpt
    if gpt.serving.server:
        gpt.serving.server.stop()


@pytest.fixture
def says(ip, gpt, capsys):
    """Runs a line that has to work, and gives what it printed."""

    def run(line: str) -> str:
        capsys.readouterr()
        ip.run_cell(line).raise_error()
        return capsys.readouterr().out

    return run


def test_an_endpoint_is_declared_listed_and_forgotten(says, shown, gpt, ip):
    line = "%gpt config endpoint mini --base-url https://api.openai.com/v1 --key-env OPENAI_API_KEY --model gpt-4o-mini"
    said = "endpoint mini: gpt-4o-mini at https://api.openai.com/v1, key from OPENAI_API_KEY\n"
    assert says(f"{line} --timeout 20 --retries 1 --out e") == said
    assert ip.user_ns["e"] == gpt.models["mini"]
    assert (ip.user_ns["e"].timeout, ip.user_ns["e"].retries, ip.user_ns["e"].has_chat) == (20.0, 1, True)
    assert says(line) == said  # Run All works twice
    says("%gpt config endpoint llama --base-url http://127.0.0.1:11434/v1 --model llama3 --base --user")
    assert not gpt.models["llama"].has_chat
    says("%gpt config")
    assert re.findall(r"^(\w+) .*  (key from \w+|no key)", shown.pop(), re.MULTILINE) == [
        ("llama", "no key"),
        ("mini", "key from OPENAI_API_KEY"),
    ]
    says("%gpt models")
    assert "gpt-4o-mini at api.openai.com" in shown.pop()
    assert says("%gpt config endpoint mini --remove") == "endpoint mini is removed\n"
    assert "mini" not in gpt.models


def test_config_mistakes(fails, gpt):
    assert fails("%gpt config endpoint --model m").startswith("%gpt config needs a name before its options")
    assert fails("%gpt config endpoint a --model m") == "%gpt config endpoint a needs --base-url"
    assert fails("%gpt config endpoint a --base-url http://x/v1") == "%gpt config endpoint a needs --model"
    assert fails("%gpt config endpoints a") == (
        "%gpt config WHAT: expected endpoint or template or launcher, got 'endpoints' (did you mean endpoint?)"
    )
    assert "there is no endpoint a" in fails("%gpt config endpoint a --remove")
    assert "cannot be a name" in fails("%gpt config endpoint ../a --base-url http://x/v1 --model m")
    assert "sk-hush" not in fails("%gpt config endpoint a --base-url http://x/v1 --model m --key-env sk-hush")


def test_settings_of_a_launcher_are_kept_shown_and_removed(says, shown, fails, gpt):
    says('%gpt config launcher slurm partition=gpu "options=--mem=100G --exclusive" --user')
    says("%gpt config launcher slurm partition=big account=nlp")
    assert re.search(r"partition +big +partition of the jobs", shown.pop())
    from jupyter_gpt.runs.launchers.launcher import settings_of

    options = "--mem=100G --exclusive"
    assert settings_of("slurm") == {"partition": "big", "account": "nlp", "options": options}
    says("%gpt config launcher slurm partition=")
    assert settings_of("slurm") == {"partition": "gpu", "account": "nlp", "options": options}
    says("%gpt config launcher slurm --remove")
    says("%gpt config launcher slurm --remove --user")
    assert settings_of("slurm") == {}
    assert fails("%gpt config launcher slurm partitoin=x").startswith(
        "launcher slurm has no setting partitoin (did you"
    )
    assert "there is no launcher slrm (did you mean slurm?)" in fails("%gpt config launcher slrm a=b")
    assert "write KEY=VALUE" in fails("%gpt config launcher slurm partition gpu")
    assert "no option of an endpoint" in fails("%gpt config endpoint a b=c")
    assert "is no setting of a launcher" in fails("%gpt config launcher slurm --timeout 3")


def test_a_key_in_a_variable_of_the_notebook_is_not_told(fails, gpt, ip):
    ip.user_ns["key"] = "sk-hush-0123456789"
    line = fails("%gpt config endpoint a --base-url http://x/v1 --model m --key-env $key")
    assert "hush" not in line


def test_serving_shows_how_a_new_token_begins(says, gpt, ip):
    first = says("%gpt serve --port 0 --out server")
    server = ip.user_ns["server"]
    how = " (the whole token: gpt.serve().token)"
    assert first == f"serving at http://127.0.0.1:«{server.port}»/v1\ntoken: «{server.token[:4]}…»{how}\n"
    assert server.token not in first and gpt.serve().token == server.token
    again = says("%gpt serve --port 0")
    assert server.token not in again
    assert "same token" in again
    assert says("%gpt serve --stop") == "the server is stopped\n"
    assert not server.running


def test_a_token_of_ones_own_is_never_shown(says, fails, gpt, monkeypatch):
    monkeypatch.setenv("MY_SERVE_TOKEN", "hush-hush-hush-hush")
    text = says("%gpt serve --port 0 --token-env MY_SERVE_TOKEN")
    assert "token: that in MY_SERVE_TOKEN" in text
    assert "hush" not in text
    assert "a server is already running" in fails("%gpt serve --host 0.0.0.0")
    says("%gpt serve --stop")
    assert fails("%gpt serve --stop") == "no server is running: start one with `%gpt serve`"
    assert fails("%gpt serve --stop --port 1") == "%gpt serve --stop takes no other option"
    assert "hush" not in fails("%gpt serve --port 0 --token-env hush-hush-hush-hush")


def test_templates_are_shown_and_replaced(gpt, ip, fails, shown):
    for line in (
        "%gpt config template cot --out own",
        r'%gpt config template cot --part think --text "Think, then answer:\n{question}" --out mine',
        "%gpt config template cot --part think --remove --out back",
    ):
        ip.run_cell(line).raise_error()
    names = ip.user_ns
    assert "cot trigger\n\nLet's think step by step." in shown[0]
    assert names["mine"]["think"] == "Think, then answer:\n{question}"
    assert "cot think (replaced)\n\nThink, then answer:\n{question}" in shown[1]
    assert names["back"] == names["own"]
    assert "nothing fills {asked}" in fails('%gpt config template cot --part think --text "{question} {asked}"')
    assert fails("%gpt config template").endswith("needs a technique: cot, expert, reflection, tree, react, agent")
    assert "did you mean think" in fails("%gpt config template cot --part thnk")
    assert "belongs to an endpoint" in fails("%gpt config template cot --model x")
    assert "replace a technique's text" in fails('%gpt config endpoint --text "x"')
