#!/usr/bin/env python3
"""Tests that can fail: which of the mutants that cargo-mutants lists do the tests notice?

    tests/mutants/mutants.py prepare            copies the sources with all mutants in them, builds, learns what each test reaches
    tests/mutants/mutants.py run [MINUTES] [--files GLOB] [--again VERDICT]
                                                runs what has no verdict yet, two at a time, at most MINUTES (default 50);
                                                of these sources only, if told; what timed out, say, once more
    tests/mutants/mutants.py report             the figure; exit 1 if a mutant survives that explained.txt does not know
    tests/mutants/mutants.py show WORD          verdicts, tests and changes of the mutants whose line contains WORD

`run` may be interrupted and repeated: verdicts are kept for as long as the sources and tests stay as they are (`prepare`
keeps what was caught, and what is explained; without target/mutants/verdicts.json everything is asked anew). Needs `cargo install cargo-mutants`. docs/testing.md tells the idea.
"""

import argparse, collections, concurrent.futures, fnmatch, hashlib, json, os, pathlib, re, resource, shutil, subprocess, sys, threading, time

PROJECT = pathlib.Path(__file__).resolve().parents[2]
WORK = PROJECT / "target/mutants"
COPY = WORK / "copy"
EXPLAINED = PROJECT / "tests/mutants/explained.txt"
# The pure part of control: what touches neither a descriptor nor a file.
FILES = ["src/rewrite/**", "src/handoff/**"] + [
    f"src/control/{name}.rs" for name in
    "backoff codec complaints ending frame greeting message outbox peer profile replay report seal session session/** settings tls wire".split()]
# Test binaries, in the order in which they are asked; what is not named here is not asked.
BINARIES = ["engine", "baton", "rewrite", "sim", "sim_with_offload", "control_overlay", "control"]
SETTINGS = {"BATON_SEEDS": "50", "PROPTEST_RNG_SEED": "1", "RUSTC_BOOTSTRAP": "1", "PROPTEST_DISABLE_FAILURE_PERSISTENCE": "1"}
WORKERS = 2
QUICK_SECONDS = 0.25
# Longer ones are not asked.
LONG_SECONDS = 20
MEMORY_BYTES = 6 << 30
BUILD = {"CARGO_TARGET_DIR": str(WORK / "build"), "RUSTC_BOOTSTRAP": "baton", "RUSTFLAGS": "--cap-lints allow",
         "CARGO_PROFILE_DEV_OPT_LEVEL": "1", "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "0"}


def shell(*command, **more):
    return subprocess.run([str(word) for word in command], check=True, text=True, cwd=PROJECT, **more)


def load(name, otherwise=None):
    path = WORK / name
    return json.loads(path.read_text()) if path.exists() else otherwise


def save(name, value):
    (WORK / (name + ".new")).write_text(json.dumps(value, indent=0))
    (WORK / (name + ".new")).rename(WORK / name)


# --- mutants and their names -------------------------------------------------------------------------------------

def listed():
    filters = [word for pattern in FILES for word in ("--file", pattern)]
    mutants = json.loads(shell("cargo", "mutants", "--list", "--json", *filters, capture_output=True).stdout)
    texts, seen = {}, collections.Counter()
    for mutant in mutants:
        lines = texts.setdefault(mutant["file"], (PROJECT / mutant["file"]).read_text().splitlines())
        start, end = mutant["span"]["start"], mutant["span"]["end"]
        what = mutant["name"].split(": ", 1)[1]
        # Stays the same when lines move; several of one line are told apart by their order.
        place = f"{mutant['file']}: {what}"
        if mutant["genre"] != "FnValue":
            place += f": `{lines[start['line'] - 1].strip()}`"
        seen[place] += 1
        mutant["key"] = place if seen[place] == 1 else f"{place} #{seen[place]}"
        mutant["line"], mutant["column"], mutant["last"] = start["line"], start["column"], end["line"]
        del mutant["diff"]
    return mutants


# --- the copy ----------------------------------------------------------------------------------------------------

def write_copy(tool, dropped):
    COPY.mkdir(parents=True, exist_ok=True)
    subprocess.run(["rsync", "-a", "--delete", "--checksum", "--exclude=/target", "--exclude=/.git", "--exclude=/src", f"{PROJECT}/", f"{COPY}/"], check=True) \
        if shutil.which("rsync") else copy_rest()
    fresh = WORK / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(PROJECT / "src", fresh / "src")
    (WORK / "dropped").write_text(" ".join(map(str, dropped)))
    said = subprocess.run([tool, WORK / "mutants.json", WORK / "dropped", PROJECT, fresh], check=True, capture_output=True, text=True).stdout
    shutil.copy(PROJECT / "tests/mutants/src/mutation.rs", fresh / "src/mutation.rs")
    root = fresh / "src/lib.rs"
    features = "#![feature(core_intrinsics, const_eval_select)]\n#![allow(internal_features)]\n"
    root.write_text(features + root.read_text() + "\n#[doc(hidden)]\npub mod mutation;\n")
    shutil.rmtree(COPY / "src", ignore_errors=True)
    (fresh / "src").rename(COPY / "src")
    return {int(line.split("\t")[0]): line.split("\t")[1] for line in said.splitlines()}


def copy_rest():
    for name in ["Cargo.toml", "Cargo.lock"]:
        shutil.copy(PROJECT / name, COPY / name)
    for name in ["tests", "benches", "examples", "docs"]:
        shutil.rmtree(COPY / name, ignore_errors=True)
        shutil.copytree(PROJECT / name, COPY / name)
    shutil.copy(PROJECT / "README.md", COPY)


def cargo(*words, messages=True):
    command = ["cargo", *words] + (["--message-format=json"] if messages else [])
    run = subprocess.run(command, cwd=COPY, env=os.environ | BUILD, capture_output=True, text=True)
    return run, [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")] if messages else []


def blamed(message, texts):
    """The mutants at whose doors an error of the compiler lies."""
    found = set()
    if (message.get("code") or {}).get("code") == "E0004":
        # A match whose arm may be passed over is said to lack an arm: the span is that of what it looks at.
        span = message["spans"][0]
        text = (COPY / span["file_name"]).read_bytes()[span["byte_end"]:]
        arm = re.search(rb"/\*<(\d+)\*/ if !crate::mutation", text)
        return {int(arm[1])} if arm else found
    for span in message["spans"]:
        if not span["is_primary"] and found:
            continue
        text = texts.setdefault(span["file_name"], (COPY / span["file_name"]).read_bytes())
        open_marks = []
        for mark in re.finditer(rb"/\*([<>])(\d+)\*/", text[:span["byte_end"]]):
            if mark[1] == b"<":
                open_marks.append(int(mark[2]))
            elif open_marks and open_marks[-1] == int(mark[2]):
                open_marks.pop()
        if open_marks:
            found.add(open_marks[-1])
    return found


def prepare():
    WORK.mkdir(parents=True, exist_ok=True)
    mutants = listed()
    save("mutants.json", mutants)
    shell("cargo", "build", "--quiet", "--manifest-path", "tests/mutants/Cargo.toml", env=os.environ | {"CARGO_TARGET_DIR": str(WORK / "tool")})
    tool = WORK / "tool/debug/baton-mutants"
    # What did not compile will not compile next time, as long as its file is the same.
    texts = {mutant["file"]: hashlib.sha256((PROJECT / mutant["file"]).read_bytes()).hexdigest() for mutant in mutants}
    known = load("unviable.json", {})
    unviable = {number: known[mutant["key"]][1] for number, mutant in enumerate(mutants, 1)
                if known.get(mutant["key"], [None])[0] == texts[mutant["file"]] and known[mutant["key"]][1].startswith("E")}
    for _ in range(20):
        impossible = write_copy(tool, sorted(unviable))
        run, messages = cargo("check", "--lib")
        errors = [message["message"] for message in messages
                  if message["reason"] == "compiler-message" and message["message"]["level"].startswith("error")]
        if run.returncode == 0:
            break
        before, copies = len(unviable), {}
        for error in errors:
            for number in blamed(error, copies):
                unviable.setdefault(number, f"{(error.get('code') or {}).get('code')}: {error['message']}")
        print(f"{len(errors)} errors, {len(unviable)} unviable", flush=True)
        if len(unviable) == before:
            for error in errors[:5]:
                print(error["rendered"])
            sys.exit("errors that no mutant can be blamed for")
    unviable |= impossible
    save("unviable.json", {mutants[number - 1]["key"]: [texts[mutants[number - 1]["file"]], reason] for number, reason in unviable.items()})
    run, messages = cargo("test", "--no-run", "--lib", *[word for name in BINARIES if name != "baton" for word in ("--test", name)])
    if run.returncode != 0:
        print(run.stderr[-3000:])
        sys.exit("the copy does not build")
    executables = {message["target"]["name"]: message["executable"] for message in messages
                   if message["reason"] == "compiler-artifact" and message.get("executable") and message["profile"]["test"]}
    tests = learn({name: executables[name] for name in BINARIES})
    reached = collections.Counter(number for test in tests for number in test["reached"])
    state = hashlib.sha256(json.dumps([texts, SETTINGS]).encode())
    save("tests.json", tests)
    save("state.json", {"sources": state.hexdigest(), "executables": executables})
    # A test may have been added: what has survived is asked again, unless it is explained.
    known = explained()
    kept = {key: verdict for key, verdict in load("verdicts.json", {}).items()
            if verdict["verdict"] in ("caught", "timeout") or key in known}
    save("verdicts.json", kept)
    viable = len(mutants) - len(unviable)
    print(f"{len(mutants)} mutants, {viable} viable, {len(reached)} reached by {len(tests)} tests")


# --- what the tests reach ----------------------------------------------------------------------------------------

def limit():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    os.nice(2)


def run_tests(executable, names, seconds, more):
    """Exit code of the tests `names`, None if they were not done in time."""
    command = [executable, "--exact", "--test-threads=1", "-Z", "unstable-options", "--fail-fast", *names]
    process = subprocess.Popen(command, cwd=COPY, env=os.environ | SETTINGS | {"CARGO_MANIFEST_DIR": str(COPY)} | more, preexec_fn=limit, start_new_session=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return None


def learn(executables):
    jobs = []
    for binary, executable in executables.items():
        said = subprocess.run([executable, "--list", "--format", "terse"], cwd=COPY, capture_output=True, text=True, check=True).stdout
        jobs += [(binary, executable, line.removesuffix(": test")) for line in said.splitlines() if line.endswith(": test")]

    def one(job):
        binary, executable, name = job
        file = WORK / f"reached.{threading.get_ident()}"
        file.unlink(missing_ok=True)
        began = time.monotonic()
        code = run_tests(executable, [name], 900, {"BATON_MUTANTS_REACHED": str(file)})
        if code != 0:
            print(f"fails without any mutant: {binary} {name}: {code}", flush=True)
        reached = sorted({int(line) for line in file.read_text().split()}) if file.exists() and code == 0 else []
        return {"binary": binary, "executable": executable, "name": name, "seconds": time.monotonic() - began, "reached": reached}

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        return [test for test in pool.map(one, jobs) if test["reached"] and test["seconds"] < LONG_SECONDS]


# --- running -----------------------------------------------------------------------------------------------------

def judge(number, tests):
    """Verdict of one mutant, with the test that caught it."""
    by_binary = collections.defaultdict(list)
    for test in tests:
        by_binary[test["binary"]].append(test)
    slow = []
    for binary in BINARIES:
        quick = [test for test in by_binary[binary] if test["seconds"] < QUICK_SECONDS]
        slow += [test for test in by_binary[binary] if test["seconds"] >= QUICK_SECONDS]
        if quick:
            yield binary, quick
    for test in sorted(slow, key=lambda test: (test["binary"] == "control", test["seconds"])):
        yield test["binary"], [test]


def run(minutes, files, again):
    mutants, tests, verdicts = load("mutants.json"), load("tests.json"), load("verdicts.json", {})
    unviable = load("unviable.json")
    by_mutant = collections.defaultdict(list)
    for test in tests:
        for number in test["reached"]:
            by_mutant[number].append(test)
    is_asked = lambda key: key not in verdicts or verdicts[key]["verdict"] == again
    waiting = [number for number, mutant in enumerate(mutants, 1)
               if mutant["key"] not in unviable and fnmatch.fnmatch(mutant["file"], files) and is_asked(mutant["key"])]
    # What matters most comes first, should the time end.
    waiting.sort(key=lambda number: ["rewrite", "handoff", "control"].index(mutants[number - 1]["file"].split("/")[1]))
    print(f"{len(waiting)} to run", flush=True)
    end, lock, done = time.monotonic() + minutes * 60, threading.Lock(), [0]

    def one(number):
        if time.monotonic() > end:
            return
        verdict, began = {"verdict": "unreached" if not by_mutant[number] else "survived"}, time.monotonic()
        for binary, group in judge(number, by_mutant[number]):
            usual = sum(test["seconds"] for test in group)
            names = [test["name"] for test in group]
            code = run_tests(group[0]["executable"], names, 10 + 6 * usual, {"BATON_MUTANT": str(number)})
            if code != 0:
                verdict = {"verdict": "timeout" if code is None else "caught", "by": f"{binary}: {names[0] if len(names) == 1 else f'one of {len(names)}'}"}
                break
        verdict["seconds"] = round(time.monotonic() - began, 1)
        with lock:
            verdicts[mutants[number - 1]["key"]] = verdict
            done[0] += 1
            if done[0] % 20 == 0:
                save("verdicts.json", verdicts)
                counts = collections.Counter(verdict["verdict"] for verdict in verdicts.values())
                print(f"{done[0]}/{len(waiting)} {dict(counts)}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(one, waiting))
    save("verdicts.json", verdicts)
    left = sum(mutant["key"] not in unviable and mutant["key"] not in verdicts for mutant in mutants)
    print(f"{left} left")


# --- the figure --------------------------------------------------------------------------------------------------

def explained():
    """Key of each explained mutant, with its reason: the last line that begins with `## `."""
    reasons, reason = {}, None
    for line in EXPLAINED.read_text().splitlines() if EXPLAINED.exists() else []:
        if line.startswith("## "):
            reason = line[3:]
        elif line and not line.startswith("#"):
            reasons[line] = reason
    return reasons


def report():
    mutants, verdicts, unviable, reasons = load("mutants.json"), load("verdicts.json", {}), load("unviable.json"), explained()
    table, new = collections.defaultdict(collections.Counter), []
    for mutant in mutants:
        key, part = mutant["key"], mutant["file"].split("/")[1]
        verdict = "unviable" if key in unviable else verdicts.get(key, {"verdict": "not run"})["verdict"]
        if verdict in ("survived", "unreached"):
            if key in reasons:
                verdict = "explained"
            else:
                new.append(f"{verdict:9} {mutant['line']:4}  {key}")
        table[part][verdict] += 1
        table["all"][verdict] += 1
    columns = ["unviable", "caught", "timeout", "explained", "survived", "unreached", "not run"]
    print("| part | mutants | viable | " + " | ".join(columns[1:]) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for part in ["rewrite", "handoff", "control", "all"]:
        counts = table[part]
        print(f"| {part} | {sum(counts.values())} | {sum(counts.values()) - counts['unviable']} | " + " | ".join(str(counts[column]) for column in columns[1:]) + " |")
    for line in new:
        print(line)
    known = {mutant["key"] for mutant in mutants}
    for key in reasons:
        verdict = "gone" if key not in known else verdicts.get(key, {}).get("verdict")
        if verdict in ("gone", "caught", "timeout"):
            print(f"explained, but {verdict}: {key}")
    return 1 if new else 0


def show(word):
    mutants, verdicts, unviable, tests = load("mutants.json"), load("verdicts.json", {}), load("unviable.json"), load("tests.json")
    for number, mutant in enumerate(mutants, 1):
        if word in mutant["key"] or word == str(number):
            print(number, f"{mutant['line']}:{mutant['column']}", mutant["key"], unviable.get(mutant["key"]) or verdicts.get(mutant["key"]))
            print("    ", ", ".join(f"{test['binary']}:{test['name']}" for test in tests if number in test["reached"])[:1500])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare"]:
            prepare()
        case ["run", *words]:
            parser = argparse.ArgumentParser(prog="mutants.py run")
            parser.add_argument("minutes", type=float, nargs="?", default=50)
            parser.add_argument("--files", metavar="GLOB", default="*")
            parser.add_argument("--again", metavar="VERDICT", choices=["timeout", "survived", "unreached"])
            run(**vars(parser.parse_args(words)))
        case ["report"]:
            sys.exit(report())
        case ["show", word]:
            show(word)
        case _:
            sys.exit(__doc__)
