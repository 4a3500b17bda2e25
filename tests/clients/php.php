<?php
function ask($kind, $url) {
    if ($kind === "guzzle") {
        require_once "GuzzleHttp/autoload.php";
        return (string) (new GuzzleHttp\Client(["timeout" => 10]))->get($url)->getBody();
    }
    if ($kind === "curl") {
        $curl = curl_init($url);
        curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_TIMEOUT => 10]);
        $body = curl_exec($curl);
        return curl_getinfo($curl, CURLINFO_HTTP_CODE) . " $body " . curl_error($curl);
    }
    $options = ["timeout" => 10, "ignore_errors" => true];
    if ($kind === "context") {
        $proxy = parse_url(getenv("HTTP_PROXY"));
        $user = base64_encode(urldecode($proxy["user"] ?? "") . ":" . urldecode($proxy["pass"] ?? ""));
        $options += ["proxy" => "tcp://{$proxy['host']}:{$proxy['port']}", "header" => "Proxy-Authorization: Basic $user"];
        $options["request_fulluri"] = !str_starts_with($url, "https:");
    }
    $body = @file_get_contents($url, false, stream_context_create(["http" => $options]));
    return $body === false ? error_get_last()["message"] : "{$http_response_header[0]} $body";
}
foreach (array_slice($argv, 2) as $cell) {
    [$name, $url] = explode("=", $cell, 2);
    echo "== $name\n";
    try { echo ask($argv[1], $url), "\n"; } catch (Throwable $error) { echo $error->getMessage(), "\n"; }
}
