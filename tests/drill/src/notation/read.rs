//! From text to scripts, line by line; packets are read in `packet`.

use super::{App, Event, Line, Script, Settings, Time, Wrong, packet};
use std::path::Path;
use std::time::Duration;

pub fn script(file: &str, text: &str) -> Result<Script, Wrong> {
    let name = Path::new(file).file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let mut script = Script { name, file: file.to_owned(), about: Vec::new(), settings: Settings::default(), lines: Vec::new() };
    for (index, text) in text.lines().enumerate() {
        let wrong = |what: String| Wrong { file: file.to_owned(), line: index + 1, what };
        let text = text.trim();
        let comment = text.strip_prefix("//").or_else(|| text.strip_prefix('#'));
        if let Some(comment) = comment {
            if script.lines.is_empty() {
                script.about.push(comment.trim().to_owned());
            }
        } else if let Some(setting) = text.strip_prefix("--") {
            set(&mut script.settings, setting).map_err(wrong)?;
        } else if !text.is_empty() {
            let (time, event) = line(text).map_err(wrong)?;
            script.lines.push(Line { number: index + 1, text: text.to_owned(), time, event });
        }
    }
    if script.about.is_empty() {
        return Err(Wrong { file: file.to_owned(), line: 1, what: "say in a comment first which rule this holds".to_owned() });
    }
    if script.lines.is_empty() {
        return Err(Wrong { file: file.to_owned(), line: 1, what: "a script without lines".to_owned() });
    }
    Ok(script)
}

fn set(settings: &mut Settings, setting: &str) -> Result<(), String> {
    let (name, value) = setting.split_once('=').ok_or_else(|| format!("'--{setting}': expected --name=value"))?;
    let (name, value) = (name.trim(), value.trim());
    let number = || value.parse::<u32>().map_err(|_| format!("--{name}: '{value}' is no number"));
    match name {
        "tolerance_usecs" => settings.late = Duration::from_micros(number()?.into()),
        "handoffs" => settings.handoffs = number()?,
        "mtu_probing" => match number()? {
            2 => settings.is_probing = true,
            _ => return Err(format!("--mtu_probing: '{value}' is not 2, at which kernels probe always")),
        },
        "isn" => settings.isn = Some(number()?),
        "families" => {
            settings.families = value
                .split(',')
                .map(|family| match family.trim() {
                    "4" => Ok(4),
                    "6" => Ok(6),
                    other => Err(format!("--families: '{other}' is neither 4 nor 6")),
                })
                .collect::<Result<_, _>>()?;
        }
        "must_fail" => settings.must_fail = Some(complaint(name, value)?),
        "differs" => {
            let (way, rest) =
                value.split_once(' ').ok_or("--differs: expected the way, the line, and a word of the complaint")?;
            let (line, what) = complaint(name, rest)?;
            settings.differs = Some((way.to_owned(), line, what));
        }
        _ => {
            let known = "tolerance_usecs, handoffs, isn, families, mtu_probing, must_fail and differs";
            return Err(format!("--{name}: not known; there are {known}"));
        }
    }
    Ok(())
}

/// A line and a word of its complaint.
fn complaint(name: &str, value: &str) -> Result<(usize, String), String> {
    let (line, what) =
        value.split_once(' ').ok_or_else(|| format!("--{name}: expected the line, and a word of the complaint"))?;
    let line = line.parse().map_err(|_| format!("--{name}: '{line}' is no number of a line"))?;
    Ok((line, what.trim().to_owned()))
}

fn line(text: &str) -> Result<(Time, Event), String> {
    let (time, rest) = text.split_once(char::is_whitespace).ok_or("a time and nothing after it")?;
    let rest = rest.split("//").next().unwrap_or_default().trim();
    Ok((read_time(time)?, event(rest)?))
}

fn read_time(text: &str) -> Result<Time, String> {
    if text == "*" {
        return Ok(Time::Any);
    }
    let one = |text: &str| {
        let seconds =
            text.strip_prefix('+').ok_or_else(|| format!("the time '{text}': expected '+SECONDS', '+FROM~+TO' or '*'"))?;
        let seconds: f64 = seconds.parse().map_err(|_| format!("the time '{text}' is no number of seconds"))?;
        Duration::try_from_secs_f64(seconds).map_err(|reason| format!("the time '{text}': {reason}"))
    };
    match text.split_once('~') {
        None => Ok(Time::After(one(text)?)),
        Some((from, to)) => {
            let (from, to) = (one(from)?, one(to)?);
            if to < from { Err(format!("the time '{text}' ends before it begins")) } else { Ok(Time::Between(from, to)) }
        }
    }
}

fn event(text: &str) -> Result<Event, String> {
    if text == "none" {
        return Ok(Event::Silence);
    }
    if let Some(command) = text.strip_prefix("app:") {
        return app(command.trim()).map(Event::App);
    }
    if let Some(rest) = text.strip_prefix("<") {
        return if rest.contains(" icmp ") { packet::too_big(rest) } else { packet::packet(rest).map(Event::Send) };
    }
    if let Some(rest) = text.strip_prefix(">?") {
        return packet::packet(rest).map(Event::Allow);
    }
    if let Some(rest) = text.strip_prefix('>') {
        return packet::packet(rest).map(Event::Expect);
    }
    Err(format!("'{text}': expected '<', '>', '>?', 'app:' or 'none'"))
}

fn app(text: &str) -> Result<App, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |word: &str| word.parse::<u32>().map_err(|_| format!("'{word}' is no number"));
    let is_error = |word: &str| word.starts_with('E') && word.chars().all(|c| c.is_ascii_uppercase());
    Ok(match words[..] {
        ["read", "eof"] => App::ReadEnd,
        ["read", "nothing"] => App::ReadNothing,
        ["read", word] if is_error(word) => App::ReadError(word.to_owned()),
        ["read", word] => App::Read(number(word)?),
        ["oob"] => App::ReadUrgent,
        ["write", word] if is_error(word) => App::WriteError(word.to_owned()),
        ["write", word] => App::Write(number(word)?),
        ["shutdown", how @ ("rd" | "wr" | "rdwr")] => App::Shutdown(how.to_owned()),
        ["close"] => App::Close,
        ["reset"] => App::Reset,
        ["set", name, value] => App::Set(name.to_owned(), number(value)?),
        ["state", name] => App::State(name.to_owned()),
        ["info", name, value] => App::Info(name.to_owned(), number(value)?),
        _ => {
            return Err(format!(
                "'app: {text}': there are read N|eof|nothing|ERROR, oob, write N|ERROR, shutdown rd|wr|rdwr, close, reset, \
                 set NAME VALUE, state NAME and info NAME VALUE"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use crate::notation::Script;

    fn complaint(line: &str) -> String {
        Script::parse("x.pkt", &format!("// A rule.\n{line}\n")).expect_err(line).to_string()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (line, expected) in [
            ("+0 > . 1:1(0)", "x.pkt:2: the flag '.' without 'ack'"),
            ("+0 > P 1:1(0) ack 3", "x.pkt:2: 'ack' without the flag '.'"),
            ("+0 > . 1:3(1) ack 3", "x.pkt:2: 1:3 is 2 octets long, and not 1"),
            ("0 > . 1:1(0) ack 3", "x.pkt:2: the time '0': expected '+SECONDS', '+FROM~+TO' or '*'"),
            ("+0 ? . 1:1(0) ack 3", "x.pkt:2: '? . 1:1(0) ack 3': expected '<', '>', '>?', 'app:' or 'none'"),
            ("+0 > Q. 1:1(0) ack 3", "x.pkt:2: 'Q' in the flags 'Q.': there are S, F, R, P, '.', U, E and W"),
        ] {
            assert_eq!(complaint(line), expected);
        }
        assert!(complaint("+0 app: sing").starts_with("x.pkt:2: 'app: sing': there are read"));
        assert!(complaint("--speed=1").starts_with("x.pkt:2: --speed: not known"));
        assert!(complaint("+0 > . 1:1(0) ack 3 <mss>").starts_with("x.pkt:2: expected a number after 'mss'"));
    }
}
