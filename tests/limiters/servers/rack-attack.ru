# LIMIT and PERIOD in the environment: so many requests in so many seconds, kept in memory.
require "rack/attack"

# The store that rack-attack asks for, of which Debian has a package only with all of ActiveSupport.
class Memory
  def initialize
    @counts = {}
    @lock = Mutex.new
  end

  def increment(key, amount, expires_in:)
    @lock.synchronize do
      now = Time.now
      @counts.delete_if { |_, (_, ends)| ends <= now }
      count, ends = @counts[key] || [0, now + expires_in]
      @counts[key] = [count + amount, ends]
      count + amount
    end
  end

  def read(key) = @lock.synchronize { @counts[key]&.first }

  def write(key, value, expires_in: 3600) = @lock.synchronize { @counts[key] = [value, Time.now + expires_in] }
end

Rack::Attack.cache.store = Memory.new
Rack::Attack.throttle("all", limit: ENV.fetch("LIMIT").to_i, period: ENV.fetch("PERIOD").to_i, &:ip)

use Rack::Attack
run ->(_) { [200, { "content-type" => "text/plain" }, ["ok"]] }
