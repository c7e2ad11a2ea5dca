"""cache.lua in LuaJIT, with the few functions that Envoy gives to scripts: what stays of requests without a response."""

from __future__ import annotations

from typing import Any

from lupa import luajit21

from filters.cache import policy
from filters.lua_literals import script

RULE = (
    '{route="r",version="v",methods={GET=true},statuses={[200]=true},vary={},by={{kind="header",name="x-user"}},'
    "override=false,own=false,obey=true,ttl=60,stale=0,stale_if_error=0,max_body=1000000,added={}}"
)
ENVOY = """
local function headers_of(all)
  local object = { all = all }
  function object:get(name) return all[name] end
  function object:getNumValues(name) return all[name] ~= nil and 1 or 0 end
  function object:getAtIndex(name) return all[name] end
  function object:replace(name, value) all[name] = value end
  function object:add(name, value) all[name] = all[name] and all[name] .. ", " .. value or value end
  function object:remove(name) all[name] = nil end
  return object
end

function exchange(rule, user, path, more)
  local own, sent = {}, {}
  local metadata = {
    get = function() return own end,
    set = function(_, _, key, value) own[key] = value end,
  }
  local info = { dynamicMetadata = function() return metadata end }
  local handle = {}
  local current = headers_of({ [":method"] = "GET", [":authority"] = "a", [":path"] = path, ["x-user"] = user,
    ["cache-control"] = more })
  function handle:headers() return current end
  function handle:filterContext() return { get = function() return rule end } end
  function handle:streamInfo() return info end
  function handle:timestamp() return "1792890000000" end
  function handle:body() return nil end
  function handle:httpCall() return { [":status"] = "503" }, nil end
  function handle:logErr(text) error(text) end
  function handle:respond(answer, body) sent.body = body end
  envoy_on_request(handle)
  return {
    body = function() return sent.body end,
    revalidates = function() return current:get("if-none-match") ~= nil end,
    finish = function(_, body)
      current = headers_of({ [":status"] = "200", etag = '"e"' })
      function handle:bodyChunks()
        local given = false
        return function()
          if given then return nil end
          given = true
          return { length = function() return #body end, getBytes = function() return body end }
        end
      end
      envoy_on_response(handle)
    end,
  }
end
return exchange
"""


class Worker:
    """A worker of Envoy whose policy server does not answer, with some constants of the script changed."""

    def __init__(self, **constants: int) -> None:
        values = {**policy._CONSTANTS, **constants}
        code = script(values, "grpc_call.lua", "request_values.lua", "cache/cache.lua")
        self._exchange = luajit21.LuaRuntime().execute(f"{code}\n{ENVOY}")

    def ask(self, user: str, path: str, more: str | None = None) -> Any:
        """A request that has been processed."""
        return self._exchange(RULE, user, path, more)


def test_an_answer_is_never_stored_for_another_request() -> None:
    worker = Worker(WAITING=4)
    slow = worker.ask("ann", "/secret")
    others = [worker.ask("bob", f"/{number}") for number in range(20)]
    slow.finish(slow, "of ann")
    for number, other in enumerate(others):
        other.finish(other, f"of bob {number}")
    for number in range(20):
        assert worker.ask("bob", f"/{number}").body() in (None, f"of bob {number}")
    assert worker.ask("bob", "/secret").body() is None
    assert worker.ask("bob", "/19").body() == "of bob 19"


def test_revalidations_that_never_end_hold_a_bounded_part() -> None:
    worker = Worker(LIMIT=4_000_000)
    stored = worker.ask("ann", "/a")
    stored.finish(stored, "x" * 200_000)
    assert worker.ask("ann", "/a").body() == "x" * 200_000
    conditional = [worker.ask("ann", "/a", "no-cache").revalidates() for _ in range(20)]
    assert conditional == [True] * 4 + [False] * 16
