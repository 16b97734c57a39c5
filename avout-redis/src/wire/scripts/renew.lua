-- Begins a session, or lets it live on. Answers 3: it is alive; 4: it has ended.
--
-- KEYS: cells, the session. ARGV: head, the time to live in milliseconds, and whether it begins.
local era, high, low = unpacked('>c8I4I4', ARGV[1])
local h, reply = now(call('HGET', KEYS[1], ''), era, high, low)
if not h then
  return reply
end
if ARGV[3] == '1' then
  call('HSET', KEYS[2], 'ttl', ARGV[2])
end
if call('PEXPIRE', KEYS[2], ARGV[2]) == 1 then
  return 3
end
return 4
