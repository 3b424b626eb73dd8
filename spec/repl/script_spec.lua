-- nyx as a program: options, scripts, standard input, exit codes, messages. Where the lua
-- program has a habit, nyx is compared with it.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local program = require "program"
local run = program.run

local script = os.tmpname()
local function write(text) return program.write(script, text) end

describe("nyx", function()
  teardown(function() os.remove(script) end)

  it("runs a script with its arguments", function()
    write 'print(#arg, arg[0], arg[1], arg[2], ...)'
    local out, err, code = run("$NYX " .. script .. " one 'two words'")
    assert.are.equal("2\t" .. script .. "\tone\ttwo words\tone\ttwo words\n", out)
    assert.are.equal("", err)
    assert.are.equal(0, code)
  end)

  it("gives scripts no globals beyond Lua's", function()
    local out = run "$NYX -e 'print(nyx, help)'"
    assert.are.equal("nil\tnil\n", out)
  end)

  it("finds nyx wherever it is started", function()
    local out, err = run [[cd / && $NYX -l nyx -e 'print(nyx.ones(3):sum():item())']]
    assert.are.equal("3.0\n", out, err)
  end)

  it("requires modules with -l, in order with -e", function()
    local out, err = run [[$NYX -l nyx -l n=nyx.nn -e 'print(nyx.nn == n)' -e 'print(type(n))']]
    assert.are.equal("true\ntable\n", out, err)
  end)

  it("runs standard input", function()
    assert.are.equal("3\n", (run("$NYX", "print(1 + 2)")))
    assert.are.equal("a b\n", (run("$NYX - a b", "print(table.concat({...}, ' '))")))
  end)

  it("shows its version", function()
    local out, _, code = run "$NYX -v"
    assert.matches("^Nyx %d+%.%d+%.%d+  Lua 5%.4%.%d+\n$", out)
    assert.are.equal(0, code)
  end)

  it("passes what os.exit says on", function()
    assert.are.equal(7, (select(3, run "$NYX -e 'os.exit(7)'")))
    assert.are.equal(1, (select(3, run "$NYX -e 'os.exit(false)'")))
  end)

  it("honours LUA_INIT unless told not to", function()
    assert.are.equal("hello\n1\n", (run [[LUA_INIT='print "hello"' $NYX -e 'print(1)']]))
    assert.are.equal("1\n", (run [[LUA_INIT='print "hello"' $NYX -E -e 'print(1)']]))
  end)

  it("shows warnings with -W", function()
    local _, err = run [[$NYX -W -e 'warn "careful"']]
    assert.matches("careful", err)
    _, err = run [[$NYX -e 'warn "careful"']]
    assert.are.equal("", err)
  end)

  it("keeps standard output clean and reports errors with a traceback", function()
    write "local function f() error 'broken' end\nf()"
    local out, err, code = run("$NYX " .. script)
    assert.are.equal("", out)
    assert.are.equal(1, code)
    assert.matches(script .. ":1: broken", err, 1, true)
    assert.matches("stack traceback:", err, 1, true)
    assert.matches(script .. ":2: in main chunk", err, 1, true)
  end)

  it("shows where a hook or a backward function failed", function()
    write [[
local nyx = require "nyx"
local x = nyx.ones(2, { requires_grad = true })
local function inner() error "in the hook" end
x:register_hook(function()
  inner()
end)
x:sum():backward()]]
    local _, err, code = run("$NYX " .. script)
    assert.are.equal(1, code)
    assert.matches("in a hook or backward function, stack traceback:", err, 1, true)
    assert.matches(script .. ":5: in function <", err, 1, true)
    assert.matches(script .. ":7: in main chunk", err, 1, true)
    write [[
local nyx = require "nyx"
local x = nyx.ones(2, { requires_grad = true })
x:register_hook(function() error "caught" end)
pcall(x.backward, x:sum())
error "another"]]
    _, err = run("$NYX " .. script)
    assert.is_nil(err:find("in a hook", 1, true))
  end)

  it("reports an error of Nyx at the script's line", function()
    write 'local nyx = require "nyx"\nlocal x = nyx.ones(4, 3)\nprint(x:matmul(nyx.ones(5, 2)))'
    local _, err, code = run("$NYX " .. script)
    assert.are.equal(1, code)
    assert.matches(script .. ":3: matmul: inner sizes differ", err, 1, true)
  end)

  it("reports error values that are no strings", function()
    local _, err = run [[$NYX -e 'error(setmetatable({}, {
      __tostring = function() return "T!" end}))']]
    assert.matches("T!\n", err, 1, true)
    _, err = run "$NYX -e 'error {}'"
    assert.matches("(error object is a table value)", err, 1, true)
  end)

  it("tells a syntax error, a missing file, a missing module", function()
    write "x = = 1"
    local _, err, code = run("$NYX " .. script)
    assert.matches(script .. ":1: unexpected symbol near '='", err, 1, true)
    assert.are.equal(1, code)
    _, err, code = run "$NYX /nonexistent/file.lua"
    assert.matches("cannot open /nonexistent/file.lua", err, 1, true)
    assert.are.equal(1, code)
    _, err, code = run "$NYX -l nonexistent_module"
    assert.matches("module 'nonexistent_module' not found", err, 1, true)
    assert.are.equal(1, code)
  end)

  it("tells a wrong option and shows the right ones", function()
    for _, option in ipairs { "-x", "--nonsense", "-vv", "-e" } do
      local out, err, code = run("$NYX " .. option)
      assert.are.equal("", out)
      assert.are.equal(1, code)
      assert.matches("usage: ", err, 1, true)
      assert.matches(option, err, 1, true)
    end
    local out, _, code = run "$NYX --help"
    assert.matches("usage: ", out, 1, true)
    assert.are.equal(0, code)
  end)

  it("stops reading options at -- and at the script", function()
    write "print(...)"
    assert.are.equal("-v\n", (run("$NYX -- " .. script .. " -v")))
    assert.are.equal("-e\n", (run("$NYX " .. script .. " -e")))
  end)

  it("does what lua does", function()
    if not io.popen("command -v lua5.4"):read("*l") then return pending("no lua5.4 here") end
    write "print(arg[0] ~= nil, #arg, ...)\nsetmetatable({}, {__gc = function() print 'bye' end})"
    for _, command in ipairs {
      "-e 'print(1)' -e 'print(2)'", "-e 'print(collectgarbage(\"incremental\"))'",
      script .. " a b", "-e 'x = 1' " .. script, "- < /dev/null", "-e 'error(\"x\", 0)'",
      "-e 'error()'", "-e 'return 1'", "-l string -e 'print(string == s)'", "-e 'os.exit(3, true)'",
      "-i < /dev/null > /dev/null", "-e 'io.stdout:setvbuf(\"full\") io.write(1)'",
      "-e 'print(#arg, arg[-1], arg[1])' -- ", "-e 'coroutine.wrap(error)(\"y\")'",
    } do
      local nyx = { run("$NYX " .. command) }
      local lua = { run("lua5.4 " .. command) }
      lua[2] = lua[2]:gsub("lua5%.4: ", program.nyx .. ": ")
      assert.are.same(lua, nyx, command)
    end
  end)

  it("reports what it finds with --doctor", function()
    local out, err, code = run "$NYX --doctor"
    assert.are.equal(0, code, out .. err)
    for _, subject in ipairs { "nyx  .*Lua 5%.4", "\ncpu  .*kernels", "\nfeatures  ", "\nthreads  ",
      "\ncaches  .* for each core, .* shared; lines of %d+ bytes\n",
      "\nvectors  .*%d+ registers of %d+ bytes",
      "float32: %d+x%d+ tiles by vectors %(%d+ registers%), %d+ terms", "; affinity: none\n",
      "to share work takes [%d.]+ us", "\nnuma  .*%d+ memory nodes?; policy: none\n", "\ntuning  ",
      "\nblas  ", "\nmemory  ", "\ndevices  .*opencl", "\nconsole  ", "\nlua files  ",
      "\nmodule  .*works" } do
      assert.matches(subject, out)
    end
    out, err, code = run "NYX_CPU=base $NYX --doctor"
    assert.matches("\ncpu +base kernels, NYX_CPU=base", out)
    assert.are.equal(0, code, err)
    out, err, code = run "NYX_CPU=abacus $NYX --doctor"
    assert.matches("\nproblem .*abacus", out)
    assert.are.equal(1, code, err)
  end)

  it("places threads and memory as the environment says, and says when it cannot", function()
    local show = [[ -e "local n = require 'nyx' print(n.get_affinity(), n.get_num_threads())"]]
    local allowed = run [[$NYX -e "print(require('nyx').cpu_info().allowed)"]]
    local first = allowed:match "^%d+"
    if not first then return pending "this system does not say which CPUs there are" end
    local out, err = run("NYX_AFFINITY=" .. first .. " $NYX" .. show)
    assert.are.equal(first .. "\t1\n", out)
    assert.are.equal("", err)
    out = run("NYX_THREADS=3 NYX_AFFINITY=" .. first .. " $NYX" .. show)
    assert.are.equal(first .. "\t3\n", out)
    out, err = run("NYX_AFFINITY=1023 $NYX" .. show)
    assert.matches("^none\t", out)
    assert.matches("NYX_AFFINITY: affinity: '1023' names CPU 1023, this thread may use %d", err)
    out = run "NYX_AFFINITY=everywhere NYX_NUMA=far $NYX --doctor"
    assert.matches("\n +NYX_AFFINITY: affinity: 'everywhere', expected none, compact", out)
    assert.matches("\n +NYX_NUMA: 'far', expected none, local or interleave", out)
    local default = run("$NYX" .. show)
    out, err = run("NYX_THREADS=99999999999 $NYX" .. show)
    assert.are.equal(default, out)
    assert.matches("NYX_THREADS: '99999999999', expected a whole number from 1 to 256", err, 1,
      true)
    out = run "NYX_THREADS=-1 $NYX --doctor"
    assert.matches("\n +NYX_THREADS: '%-1', expected a whole number", out)
    out = run [[NYX_NUMA=interleave $NYX -e "print(require('nyx').get_numa())"]]
    assert.is_truthy(out == "interleave\n" or out == "none\n")
  end)

  it("stops on SIGINT with an error, not a corpse", function()
    write 'print "started" io.stdout:flush() while true do end'
    local out, err, code = run("$NYX " .. script .. " & sleep 0.5; kill -INT $!; wait $!")
    assert.are.equal("started\n", out)
    assert.matches("interrupted!", err, 1, true)
    assert.are.equal(1, code)
  end)

  it("stops a read that SIGINT only just missed", function()
    if not program.exists(program.late_signal) then
      return pending "no late_signal.so beside nyx"
    end
    write [[
      local late_read = assert(package.loadlib(arg[1], "late_read"))
      print(pcall(function() late_read() end))
      print(io.read())]]
    -- What is read stays open, without a line, for longer than the test waits.
    local out, err, code = run("(sleep 1; echo line; sleep 5) | timeout 4 $NYX " .. script .. " " ..
      program.late_signal)
    assert.matches("^false\t[^\n]*interrupted!\nline\n$", out, nil, err)
    assert.are.equal(0, code)
  end)

  it("stops a running op on SIGINT", function()
    write [[
      local nyx = require "nyx"
      local a = nyx.ones(1500, 1500)
      print(pcall(function() while true do a:matmul(a) end end))]]
    local out, err, code = run("$NYX " .. script .. " & sleep 1; kill -INT $!; wait $!")
    assert.matches("interrupted", out .. err, 1, true)
    assert.is_true(code == 0 or code == 1, "exit " .. code)
  end)
end)
