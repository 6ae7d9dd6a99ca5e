"""Shows that tests can fail: breaks one rule of the engine at a time, in a copy of the sources, and expects the named test to
find it. What is broken, and by what, say `wrong-rules.sh` and `ownership/wrong-rules.sh`.

A rule that cannot be broken any more, because its text has changed, is an error, and so is a test that passes, that does not
exist, or that does not even compile.
"""

import dataclasses, fcntl, os, pathlib, re, shutil, subprocess, sys, time

PROJECT = pathlib.Path(__file__).resolve().parents[1]
# Dependencies stay built between runs.
TARGET = pathlib.Path(os.environ.get("WRONG_RULES_TARGET_DIR", PROJECT / "target/wrong-rules"))
COPY = TARGET / "copy"


@dataclasses.dataclass
class Rule:
    name: str
    # What is wrong.
    what: str
    # `--lib` or `--test NAME`, and the test's name or a part of it.
    test: str
    # File, text that must be there once, replacement; and further ones.
    changes: list
    # More for the line that tells of the catch: a function of the output.
    remark: object = None


def copy_sources():
    COPY.mkdir(parents=True, exist_ok=True)
    for name in ["Cargo.toml", "Cargo.lock", "README.md", "src", "tests", "benches", "docs", "examples"]:
        source, copy = PROJECT / name, COPY / name
        if source.is_dir():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
        else:
            shutil.copy2(source, copy)


def break_one(rule, environment):
    right = {}
    for path, text, replacement in rule.changes:
        file = COPY / path
        now = file.read_text()
        right.setdefault(file, now)
        if now.count(text) != 1:
            return f"{path} has changed: what is to be replaced is there {now.count(text)} times"
        file.write_text(now.replace(text, replacement))
    # Without what only a debugger reads, linking takes half the time.
    command = ["cargo", "test", "--quiet", "--config", "profile.dev.package.baton.debug=0", *rule.test.split()]
    run = subprocess.run(command, cwd=COPY, env=os.environ | environment, capture_output=True, text=True)
    for file, text in right.items():
        file.write_text(text)
    output = run.stdout + run.stderr
    if re.search(r"^test result: FAILED\. \d+ passed; [1-9]", output, re.MULTILINE):
        remark = rule.remark(output) if rule.remark else None
        return None, remark
    why = "the test passes" if run.returncode == 0 else "it does not compile, or the test ends otherwise"
    if run.returncode == 0 and not re.search(r"^test result: ok\. [1-9]", output, re.MULTILINE):
        why = "no such test"
    return f"{why}\n{output[-2500:]}"


def main(rules, environment=None):
    if sys.argv[1:] == ["--list"]:
        for rule in rules:
            print(f"| `{rule.name}` | {rule.what} | `cargo test {rule.test}` |")
        return
    unknown = set(sys.argv[1:]) - {rule.name for rule in rules}
    if unknown:
        sys.exit(f"no such rule: {', '.join(sorted(unknown))}; --list tells them")
    TARGET.mkdir(parents=True, exist_ok=True)
    lock = open(TARGET / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    copy_sources()
    environment = {"CARGO_TARGET_DIR": str(TARGET), "PROPTEST_CASES": "256"} | (environment or {})
    chosen = [rule for rule in rules if not sys.argv[1:] or rule.name in sys.argv[1:]]
    missed = 0
    for rule in chosen:
        began = time.monotonic()
        verdict = break_one(rule, environment)
        seconds = time.monotonic() - began
        if isinstance(verdict, str):
            missed += 1
            print(f"MISSED  {rule.name}: {rule.what}\n        {verdict}", flush=True)
        else:
            remark = f": {verdict[1]}" if verdict[1] else ""
            print(f"caught  {rule.name}: {rule.what}\n        cargo test {rule.test}, {seconds:.0f} s{remark}", flush=True)
    print(f"{len(chosen) - missed} caught, {missed} missed")
    sys.exit(1 if missed else 0)
