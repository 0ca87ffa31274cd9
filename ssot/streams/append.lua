-- Append events to one user's log: atomic, gap-free over any number of writers.
--
-- KEYS: log, epoch, then one fence key for each event
-- ARGV: expected epoch, events kept, channel, 1 to look for events that are there already,
--       then for each event: fencing token, event id, body
-- Returns for each event its entry id, or "FENCED <current token>".
local log, expected = KEYS[1], ARGV[1]
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if epoch ~= expected then
  return redis.error_reply('STALEEPOCH the server is at ' .. tostring(epoch))
end

-- The last id ever issued, not the last entry: a trimmed log may be empty and still have counted.
local seq = 0
if redis.call('EXISTS', log) == 1 then
  local info = redis.call('XINFO', 'STREAM', log)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local last_epoch, last_seq = string.match(info[i + 1], '(%d+)-(%d+)')
      if last_epoch == epoch then seq = tonumber(last_seq) end
      if tonumber(last_epoch) > tonumber(epoch) then
        return redis.error_reply('STALEEPOCH the log is at ' .. last_epoch)
      end
    end
  end
end

-- Only a retry looks for its events: the first try cannot have been applied.
local present = {}
if ARGV[4] == '1' then
  for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1000)) do
    present[entry[2][2]] = entry[1]
  end
end

local placed = {}
for i = 1, (#ARGV - 4) / 3 do
  local at = 4 + (i - 1) * 3
  local token, id, body = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local current = redis.call('GET', KEYS[2 + i])
  if current and tonumber(current) > tonumber(token) then
    placed[i] = 'FENCED ' .. current
  elseif present[id] then
    placed[i] = present[id]
  else
    seq = seq + 1
    local entry = epoch .. '-' .. string.format('%.0f', seq)
    redis.call('XADD', log, 'MAXLEN', '~', ARGV[2], entry, 'i', id, 'e', body)
    redis.call('PUBLISH', ARGV[3], entry .. ' ' .. body)
    placed[i] = entry
  end
end
return placed
