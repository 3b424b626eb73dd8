-- The interactive session: what it shows, several lines, errors, its globals; then, on a
-- real terminal, editing, Tab, Ctrl-C, Ctrl-D and history.
local here = debug.getinfo(1, "S").source:match("^@(.*/)") or "./"
package.path = here .. "?.lua;" .. package.path
local program = require "program"

-- What a session shows for the given input, without greeting and prompts.
local function session(input)
  local out, err, code = program.run("$NYX -i", input)
  assert.are.equal(0, code)
  out = out:gsub("^Nyx[^\n]*\n", ""):gsub("^>+ ", ""):gsub("\n>+ ", "\n")
  for _ = 1, 20 do out = out:gsub("^>+ ", ""):gsub("\n>+ ", "\n") end
  return out, err
end

describe("a session", function()
  it("greets, and leaves at the end of its input", function()
    local out, err, code = program.run("$NYX -i", "")
    assert.matches("^Nyx %d+%.%d+%.%d+, Lua 5%.4%.%d+, cpu %w+, %d+ threads", out)
    assert.are.equal("", err)
    assert.are.equal(0, code)
  end)

  it("shows the values of expressions", function()
    assert.are.equal("3\n", (session "1 + 2"))
    assert.are.equal("3\n", (session "=1 + 2"))
    assert.are.equal("1\tnil\ttext\n", (session "1, nil, 'text'"))
    assert.are.equal("nil\n", (session "nothing"))
    assert.are.equal("", (session "x = 1"))
    assert.are.equal("", (session "-- a comment\n\n"))
  end)

  it("shows tensors readably", function()
    local out = session "nyx.ones(2, 3)"
    assert.matches("1  1  1\n", out, 1, true)
    assert.matches("[float32 tensor of size 2x3]\n", out, 1, true)
    out = session "nyx.zeros(1000, 1000)"
    assert.is_true(#out < 2000, #out .. " bytes for a large tensor")
  end)

  it("shows what is in tables", function()
    assert.are.equal('{1, "a\\n", {x = true}, [0] = 0.5}\n',
      (session [[{1, "a\n", {x = true}, [0] = 0.5}]]))
    assert.are.equal("{}\n", (session "{}"))
    assert.are.equal("{f = function, t = [float32 tensor of size 2]}\n",
      (session "{t = nyx.ones(2), f = print}"))
    assert.are.equal("{{{{...}}}}\n", (session "{{{{{}}}}}"))
    assert.are.equal("{{{{...}}}}\n", (session "t = {} t[1] = t\nt"):gsub("^.-{", "{"))
    assert.matches("%.%.%. 60 more\n}\n$", (session "t = {} for i = 1, 100 do t[i] = i end\nt"))
  end)

  it("takes input over several lines", function()
    assert.are.equal("1\n2\n", (session "for i = 1, 2 do\nprint(i)\nend"))
    assert.are.equal("{1, 2}\n", (session "{1,\n2}"))
    assert.are.equal("a\nb\n", (session "[[a\nb]]"))
    assert.are.equal("6\n", (session "function f(x)\nreturn x * 2\nend\nf(3)"))
  end)

  it("goes on after errors", function()
    local out, err = session "error 'first'\nx = 1 +* 2\nnyx.ones(2):matmul(nyx.ones(3))\n5"
    assert.are.equal("5\n", out)
    assert.matches("stdin:1: first\nstack traceback:", err, 1, true)
    assert.matches("stdin:1: unexpected symbol near '*'", err, 1, true)
    assert.matches("stdin:1: matmul: ", err, 1, true)
    out, err = session "setmetatable({}, {__tostring = function() error 'no text' end})\n1"
    assert.are.equal("1\n", out)
    assert.matches("no text", err, 1, true)
    out, err = session "x =" -- the input ends
    assert.are.equal("", (out:gsub("%s", "")))
    assert.matches("unexpected symbol near <eof>", err, 1, true)
  end)

  it("has nyx and help", function()
    assert.are.equal("true\n", (session "nyx == require 'nyx'"))
    local text = session 'help "matmul"'
    assert.matches("matmul", text, 1, true)
    assert.is_true(#text > 60)
    assert.are.equal(text, (session "help(nyx.matmul)"))
    assert.matches("help \"matmul\"", (session "help"), 1, true)
    local out, err = session 'nyx = 5 help = 6\nnyx, help'
    assert.are.equal("5\t6\n", out, err)
  end)

  it("runs a script first with -i", function()
    local script = program.write(os.tmpname(), "made = 'by the script'")
    local out = program.run("$NYX -i " .. script, "made")
    os.remove(script)
    assert.matches("by the script", out, 1, true)
  end)

  it("has prompts that can be changed", function()
    local out = program.run("$NYX -i", "_PROMPT = 'one: ' _PROMPT2 = 'two: '\ndo\nend\n")
    assert.matches("one: two: one: $", out)
  end)
end)

-- The rest needs a terminal and the editor.
local editing = program.exists(program.pty)
  and program.run("$NYX --doctor"):find("through libedit", 1, true)

describe("a session on a terminal", function()
  local function talk(dialogue, environment, options)
    if not editing then return pending "no libedit, or no pty program beside nyx" end
    local shown, code = program.talk(dialogue, environment, options)
    assert.are.equal(0, code, shown)
  end

  it("is what nyx starts with", function()
    talk "expect Ctrl-D leaves\nprompt\nsend 6 * 7\\n\nexpect 42\nprompt\nsend \\x04\n"
  end)

  it("lets lines be edited", function()
    talk [[
prompt
send 6 * 8\x013\x051\n
expect 2916
prompt
send 7 + 7\e[D\e[D\e[D*\x0b7\n
expect 49
prompt
send abc\x08\x08\x08\x15x1 .. 2\x01\e[3~\n
expect 12
prompt
send \x04
]]
  end)

  it("completes a name that is the only one", function()
    talk [[
prompt
send nyx.manual_se\t == nyx.manual_seed\n
expect true
prompt
send x = nyx.ones(2, 2)\n
prompt
send x:argma\t().dtype\n
expect int64
prompt
send nyx.xyz\t
expect nyx.xyz
refuse xyz\t
cancel
send \x04
]]
  end)

  it("offers names: globals, keywords, fields, methods, modules not loaded yet", function()
    talk [[
prompt
send co\t\t
expect collectgarbage
expect coroutine
cancel
send n = 5 whi\t n > 4 do n = 4 end print('n' .. n)\n
expect n4
prompt
send x = nyx.ones(2, 2)\n
prompt
send x:sigmoi\t\t
expect x:sigmoid
expect x:sigmoid_
cancel
send x.dty\t .. '!'\n
expect float32!
prompt
send nyx.n\t\t
expect nyx.nn
cancel
send nyx.optim.Ada\t\t
expect nyx.optim.Adam
expect nyx.optim.AdamW
cancel
send net = nyx.nn.Linear(2, 3)\n
prompt
send #net:parameter\t\t
expect net:parameter_count
expect net:parameters
cancel
send word = 'x'\n
prompt
send word:re\t\t
expect word:rep
expect word:reverse
cancel
send \x04
]]
  end)

  it("indents with Tab at the beginning of a line", function()
    talk "prompt\nsend do\\n\nprompt\nsend \\tprint(7*8)\\nend\\n\nexpect 56\nprompt\nsend \\x04\n"
  end)

  it("gives a line up on Ctrl-C, several lines too", function()
    talk [[
prompt
send error('never')
expect never
cancel
send do\n
prompt
send error('never either')
expect either
cancel
send 'still ' .. 'here'\n
expect still here
refuse traceback
prompt
send \x04
]]
  end)

  it("stops Lua code on Ctrl-C and lives on", function()
    talk [[
prompt
send print('run' .. 'ning') while true do end\n
expect running
send \x03
expect interrupted!
prompt
send nyx.ones(3):sum():item()\n
expect 3.0
prompt
send \x04
]]
  end)

  it("stops a program that catches its errors, at the third Ctrl-C for good", function()
    talk [[
prompt
send n = 0 while true do pcall(function() n = n + 1 print('round' .. n) while true do end end) end\n
expect round1
send \x03
expect round2
send \x03
expect round3
send \x03
expect interrupted!
prompt
send 6 * n\n
expect 18
prompt
send \x04
]]
  end)

  it("stops an op on Ctrl-C and lives on", function()
    talk [[
prompt
send a = nyx.ones(3000, 3000) print('run' .. 'ning') while true do pcall(a.matmul, a, a) end\n
expect running
send \x03
expect interrupted
prompt
send print(a:sum():item() == 9e6)\n
expect true
prompt
send \x04
]]
  end)

  it("stops a program that waits for input", function()
    talk [[
prompt
send print('rea' .. 'ding') io.read()\n
expect reading
send \x03
expect interrupted!
prompt
send 5 * 5\n
expect 25
prompt
send \x04
]]
  end)

  it("keeps its history across runs", function()
    local file = os.tmpname()
    os.remove(file)
    talk("prompt\nsend remembered = 12\\n\nprompt\nsend \\x04\n", "TERM=xterm NYX_HISTORY=" .. file)
    talk("prompt\nsend \\e[A\nexpect remembered = 12\nsend 34\\nremembered\\n\n" ..
      "expect 1234\nprompt\nsend \\x04\n",
      "TERM=xterm NYX_HISTORY=" .. file)
    local handle = assert(io.open(file))
    assert.are.equal("remembered = 12\nremembered = 1234\nremembered\n", handle:read "*a")
    handle:close()
    os.remove(file)
  end)

  it("cuts a long history back, also through a link", function()
    local file = os.tmpname()
    local handle = assert(io.open(file, "w"))
    for i = 1, 4001 do handle:write("line", i, "\n") end
    handle:close()
    os.execute(("ln -s %s %s.link"):format(file, file))
    talk("prompt\nsend \\x04\n", "TERM=xterm NYX_HISTORY=" .. file .. ".link")
    local count = 0
    for _ in io.lines(file) do count = count + 1 end
    os.remove(file .. ".link")
    os.remove(file)
    assert.are.equal(2000, count)
  end)

  it("puts the history into the user's state folder", function()
    local folder = os.tmpname()
    os.remove(folder)
    talk("prompt\nsend first\\n\nexpect nil\nprompt\nsend \\x04\n",
      "-u NYX_HISTORY TERM=xterm XDG_STATE_HOME=" .. folder)
    assert.is_true(program.exists(folder .. "/nyx/history"))
    talk("prompt\nsend second\\n\nexpect nil\nprompt\nsend \\x04\n",
      "-u NYX_HISTORY -u XDG_STATE_HOME TERM=xterm HOME=" .. folder)
    assert.is_true(program.exists(folder .. "/.local/state/nyx/history"))
    os.execute("rm -r " .. folder)
  end)

  it("does not mind a history that cannot be written", function()
    talk("prompt\nsend 2 + 2\\n\nexpect 4\nprompt\nsend \\x04\n",
      "TERM=xterm NYX_HISTORY=/proc/nothing/here")
  end)

  it("takes characters of all languages", function()
    -- Also where the locale has none of them, or is not installed.
    for _, locale in ipairs { "C.UTF-8", "C", "POSIX", "xx_XX.UTF-8", "" } do
      talk("prompt\nsend s = 'größe 日本'\\n\nexpect 日本\nprompt\nsend #s\\n\n" ..
        "expect 14\nprompt\nsend \\x04\n",
        "TERM=xterm NYX_HISTORY=/dev/null LANG= LC_CTYPE= LC_ALL=" .. locale)
    end
  end)

  it("survives a terminal that changes its size", function()
    talk "prompt\nsend 1 + \nresize 40\nsend 1\\n\nexpect 2\nprompt\nsend \\x04\n"
  end)

  it("reads plain lines on a dumb terminal", function()
    talk("prompt\nsend 3 * 3\\n\nexpect 9\nprompt\nsend half a line\nexpect line\n" ..
      "cancel\nsend 4 * 4\\n\nexpect 16\nprompt\nsend \\x04\n", "TERM=dumb NYX_HISTORY=/dev/null")
  end)
end)
