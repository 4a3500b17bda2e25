require "net/http"
kind, *cells = ARGV
ask = {
  "net" => lambda { |url| answer = Net::HTTP.get_response(URI(url)); "#{answer.code} #{answer.body}" },
  "excon" => lambda { |url| require "excon"; answer = Excon.get(url); "#{answer.status} #{answer.body}" },
  "faraday" => lambda { |url| require "faraday"; answer = Faraday.get(url); "#{answer.status} #{answer.body}" },
  "httpclient" => lambda { |url| require "httpclient"; answer = HTTPClient.get(url); "#{answer.status} #{answer.body}" },
  "typhoeus" => lambda { |url| require "typhoeus"; answer = Typhoeus.get(url); "#{answer.code} #{answer.body} #{answer.return_message}" },
  "typhoeus-cainfo" => lambda { |url|
    require "typhoeus"
    answer = Typhoeus.get(url, cainfo: ENV["SSL_CERT_FILE"])
    "#{answer.code} #{answer.body} #{answer.return_message}"
  },
}.fetch(kind)
cells.each do |cell|
  name, url = cell.split("=", 2)
  puts "== #{name}"
  begin
    puts ask.call(url)
  rescue StandardError => e
    puts e.inspect
  end
end
