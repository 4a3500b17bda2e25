#!/usr/bin/env bash
# The HttpClient of Java 17 never comes back where an upload with expectContinue(true) is refused instead of asked for.
#
# Versions: OpenJDK 17.0.15 (Debian 12).
# Behaviour: the client sends `Expect: 100-continue` and waits. Where the server answers 401 instead of 100 (RFC 9110 section
#   10.1.1), and that answer has a body, `send` neither returns it nor fails; not even the timeout of the request ends it.
#   Where the answer has none, or 100 comes first, all is well. A proxy that answers 100 by itself hides this.
# Guess that was wrong: a client that offers to wait for leave can be told no.
# Output seen:
#   100, then 200: status 200
#   401 at once, with a body: nothing, 3 s after a timeout of 2 s
#
# Needs JDK 17. Everything is on loopback, in a temporary folder.
set -euo pipefail
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
command -v java >/dev/null || { echo "java is missing: apt-get install openjdk-17-jdk-headless" >&2; exit 2; }
cat >"$tmp/Refused.java" <<'JAVA'
import java.io.*;
import java.net.*;
import java.net.http.*;
import java.time.Duration;
import java.util.concurrent.*;

public class Refused {
    /** Reads one head, says this, and reads on to the end. */
    static int serve(String first, String last, int body) throws IOException {
        ServerSocket server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress());
        Thread thread = new Thread(() -> {
            try (Socket socket = server.accept()) {
                InputStream in = socket.getInputStream();
                StringBuilder head = new StringBuilder();
                while (head.indexOf("\r\n\r\n") < 0) head.append((char) in.read());
                socket.getOutputStream().write(first.getBytes());
                in.readNBytes(body);
                socket.getOutputStream().write(last.getBytes());
                while (in.read() >= 0) { }
            } catch (IOException gone) { }
        });
        thread.setDaemon(true);
        thread.start();
        return server.getLocalPort();
    }

    static String ask(int port) throws Exception {
        HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/"))
            .expectContinue(true).timeout(Duration.ofSeconds(2))
            .POST(HttpRequest.BodyPublishers.ofByteArray(new byte[1000])).build();
        FutureTask<String> asked = new FutureTask<>(() ->
            "status " + client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode());
        Thread thread = new Thread(asked);
        thread.setDaemon(true);
        thread.start();
        try {
            return asked.get(5, TimeUnit.SECONDS);
        } catch (TimeoutException none) {
            return "nothing, 3 s after a timeout of 2 s";
        } catch (ExecutionException failed) {
            return "" + failed.getCause();
        }
    }

    public static void main(String[] none) throws Exception {
        String ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        String asked = ask(serve("HTTP/1.1 100 Continue\r\n\r\n", ok, 1000));
        String refused = ask(serve("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno", "", 0));
        System.out.println("100, then 200: " + asked + "\n401 at once, with a body: " + refused);
        System.exit(asked.equals("status 200") && refused.startsWith("nothing") ? 0 : 1);
    }
}
JAVA
java "$tmp/Refused.java"
