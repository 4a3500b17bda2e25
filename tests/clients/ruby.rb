require "net/http"
ARGV.each do |cell|
  name, url = cell.split("=", 2)
  puts "== #{name}"
  begin
    answer = Net::HTTP.get_response(URI(url))
    puts "#{answer.code} #{answer.body}"
  rescue StandardError => e
    puts e.inspect
  end
end
