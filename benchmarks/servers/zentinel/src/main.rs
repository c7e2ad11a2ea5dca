//! zentinel-modsec behind the protocol of benchmarks/waf.py: JSON lines with requests in, lines with the rules that matched and times out.
use base64::Engine as _;
use serde_json::{json, Value};
use std::io::{BufRead, Write};
use std::time::Instant;
use zentinel_modsec::ModSecurity;

fn inspect(engine: &ModSecurity, asked: &Value, body: &[u8]) -> Vec<Value> {
    let mut one = engine.new_transaction();
    one.set_client_addr("127.0.0.1", 1234);
    let text = |name: &str| asked[name].as_str().unwrap();
    let _ = one.process_uri(text("target"), text("method"), &format!("HTTP/{}", text("version")));
    for header in asked["headers"].as_array().unwrap() {
        let _ = one.add_request_header(header[0].as_str().unwrap(), header[1].as_str().unwrap());
    }
    let _ = one.process_request_headers();
    if !body.is_empty() {
        let _ = one.append_request_body(body);
    }
    let _ = one.process_request_body();
    let _ = one.process_logging();
    let number = |id: &String| id.parse::<u64>().unwrap_or(0);
    one.matched_rules().iter().map(|id| json!([number(id), "", ""])).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let mut rules = std::fs::read_to_string(&arguments[1]).unwrap();
    std::env::set_current_dir(&arguments[2]).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(".").unwrap().map(|one| one.unwrap().path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("REQUEST-") && name.ends_with(".conf") {
            rules += "\n\n";
            rules += &std::fs::read_to_string(&file).unwrap();
        }
    }
    let engine = ModSecurity::from_string(&rules).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\"ready\"").unwrap();
    for line in std::io::stdin().lock().lines() {
        let asked: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let body = base64::engine::general_purpose::STANDARD.decode(asked["body"].as_str().unwrap()).unwrap();
        let matched = inspect(&engine, &asked, &body);
        let mut times: Vec<u128> = (0..asked["times"].as_u64().unwrap())
            .map(|_| {
                let began = Instant::now();
                inspect(&engine, &asked, &body);
                began.elapsed().as_micros()
            })
            .collect();
        times.sort();
        let times: Vec<u64> = times.into_iter().map(|one| one as u64).collect();
        writeln!(out, "{}", json!({"matched": matched, "times": times})).unwrap();
    }
}
