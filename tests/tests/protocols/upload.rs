//! HTTP: an upload of 1 GiB that is under way while its version is taken out of traffic.

use std::{fs, os::unix::fs::MetadataExt as _};

use shifter_daemon::model::Plane;
use shifter_tests::process::Process;

use crate::stage::{Stage, server, vip};

const GIB: u64 = 1 << 30;

fn server_process(stage: &Stage, version: usize) -> Process {
    let addr = server(version);
    let dir = stage.scratch.path().join(format!("version-{version}"));
    fs::create_dir(&dir).expect("a directory");
    let dir = dir.display();
    let config = format!(
        r#"daemon off;
worker_processes 1;
user root;
pid {dir}/nginx.pid;
error_log {dir}/error.log notice;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    server {{
        listen {addr};
        add_header X-Version "{version}" always;
        location / {{ root {dir}; dav_methods PUT; }}
    }}
}}
"#
    );
    let path = stage
        .scratch
        .write(&format!("nginx-{version}.conf"), config);
    let process = stage.serve(&format!("nginx-{version}"), "nginx", |command| {
        command.arg("-e").arg(format!("{dir}/error.log"));
        command.arg("-c").arg(path);
    });
    stage.await_server(&process, addr);
    process
}

fn through(plane: Plane) {
    let mut stage = Stage::new("upload");
    let _servers = [0, 1].map(|version| server_process(&stage, version));
    stage.steer(plane);
    let file = stage.scratch.path().join("gibibyte");
    // Holes are sent as zeros.
    fs::File::create(&file)
        .and_then(|file| file.set_len(GIB))
        .expect("a file");
    let url = format!("http://{}/upload", vip());
    let source = file.display().to_string();
    stage.send_to(1);
    let upload = stage.client(
        "curl",
        "curl",
        &[
            "--silent",
            "--show-error",
            "--fail",
            "--include",
            "--http1.1",
            "--limit-rate",
            "350M",
            "--header",
            "Expect:",
            "--upload-file",
            &source,
            &url,
        ],
    );
    while stage.live()[1] == 0 {
        assert!(upload.is_running(), "{}", upload.log());
    }
    let rollbacks_count = stage.shift_while(|| upload.is_running());
    let said = stage.succeeds(upload);
    assert!(said.contains("X-Version: 1"), "{said}");
    let stored = stage.scratch.path().join("version-1").join("upload");
    let stored = fs::metadata(&stored).expect("the upload is stored");
    assert_eq!(stored.size(), GIB);
    assert!(rollbacks_count >= 1);
}

#[test]
fn nat_plane() {
    through(Plane::Nat);
}

#[test]
fn socket_plane() {
    through(Plane::Socket);
}
