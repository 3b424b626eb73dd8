-- The rocks: installs nyx, and after it the extension nyx-example, into a new tree with
-- LuaRocks, and uses them with the interpreter they were made for and nothing else. The first
-- run compiles Nyx in build/rock, which takes minutes. Read next: rocks/nyx-scm-1.rockspec.
local source = debug.getinfo(1, "S").source:match "^@(.*)spec/rocks/" or "./"
package.path = source .. "spec/docs/?.lua;" .. package.path
local shell = require "shell"

local function has(program)
  return shell.run("command -v " .. program) == 0
end

-- Output of a command that has to succeed.
local function succeed(command)
  local code, output = shell.run(command)
  assert.equal(0, code, command .. "\n" .. output)
  return output
end

local root = succeed(("cd '%s./' && pwd"):format(source)):gsub("\n", "")
local lua_54 = has "lua5.4" and "lua5.4" or "lua"

describe("the rocks", function()
  if not (has "luarocks" and has "cc" and has "cmake" and has "make" and has(lua_54)) then
    it("install", function() pending "no LuaRocks, C compiler, cmake, make or Lua 5.4" end)
    return
  end

  local tree, script

  -- A shell command with the tree's folders as Lua's search paths, and only these.
  local function with_tree(command, more)
    return ("cd '%s' && env -u LD_LIBRARY_PATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4 "
      .. "LUA_PATH='%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua%s' "
      .. "LUA_CPATH='%s/lib/lua/5.4/?.so%s' %s"):format(tree, tree, tree, more or "", tree,
      more or "", command)
  end

  local function run(text)
    shell.write(script, text)
    return succeed(with_tree(lua_54 .. " '" .. script .. "'"))
  end

  local function luarocks(folder, arguments)
    -- Two installations never build at once: build/rock is one folder. What optimised code
    -- computes other specs see; this one compiles it again, so the quick way.
    local launcher = has "ccache" and "CMAKE_C_COMPILER_LAUNCHER=ccache " or ""
    return succeed(("cd '%s/%s' && env -u LUA_PATH -u LUA_CPATH %s"
      .. "NYX_ROCK_CMAKE='-DCMAKE_BUILD_TYPE=Debug -DNYX_DEBUG_LEVEL=-O0 -DNYX_WERROR=OFF' "
      .. "luarocks --lua-version=5.4 --tree='%s' %s"):format(root, folder, launcher, tree,
      arguments))
  end

  setup(function()
    tree = shell.folder()
    script = tree .. "/script.lua"
    luarocks(".", "make --deps-mode=none rocks/nyx-scm-1.rockspec")
    luarocks("rocks/nyx-example", "make --deps-mode=none nyx-example-scm-1.rockspec")
  end)

  teardown(function()
    shell.run(("rm -r '%s' '%s/rocks/nyx-example/build'"):format(tree, root))
  end)

  it("refuse a Lua that Nyx does not work with, and say which it does", function()
    local lua = tree .. "/lua"
    for _, version in ipairs { "Lua 5.1", "Lua 5.3" } do
      shell.write(lua, "#!/bin/sh\necho -n '" .. version .. "'\n")
      local code, output = shell.run(("cd '%s' && chmod +x '%s' && luarocks --lua-version=5.4 "
        .. "--tree='%s/other' make --deps-mode=none rocks/nyx-scm-1.rockspec LUA='%s'"):format(
        root, lua, tree, lua))
      output = output:gsub("%s+", " ")
      assert.not_equal(0, code)
      assert.is_truthy(output:find("/lua' is " .. version .. ".", 1, true), output)
      assert.is_truthy(output:find("luarocks --lua-version=5.4 make", 1, true), output)
    end
  end)

  it("give stock Lua tensors", function()
    assert.equal("10.0\n", run [[
      local nyx = require "nyx"
      local x = nyx.tensor({ 1, 2, 3, 4 }, { requires_grad = true })
      local y = x * x / 2
      y:sum():backward()
      print(x.grad:sum():item())
    ]])
  end)

  it("train, save and load", function()
    assert.equal("true\n", run [[
      local nyx = require "nyx"
      local model = nyx.nn.Sequential(nyx.nn.Linear(2, 8), nyx.nn.Tanh(), nyx.nn.Linear(8, 1))
      local optimizer = nyx.optim.Adam(model:parameters(), { lr = 0.01 })
      model(nyx.randn(4, 2)):square():mean():backward()
      optimizer:step()
      assert(nyx.save("model.nyx", model))
      local again = assert(nyx.load("model.nyx"))
      local x = nyx.randn(3, 2)
      print(model(x):equal(again(x)))
    ]])
  end)

  it("load nothing from outside the tree", function()
    local files = run [[
      require "nyx.example"
      for line in io.lines "/proc/self/maps" do
        local file = line:match "(/%S*nyx%S*)$"
        if file then print(file) end
      end
    ]]
    local count = 0
    for file in files:gmatch "[^\n]+" do
      assert.equal(tree .. "/lib/lua/5.4/nyx/", file:sub(1, #tree + 17), file)
      count = count + 1
    end
    assert.is_true(count > 0)
    for _, name in ipairs { "core.so", "libnyx.so.0", "example/core.so" } do
      assert.is_truthy(files:find("/nyx/" .. name, 1, true), files)
    end
  end)

  it("bring an op of an extension when it is required, not before", function()
    assert.equal("nil\nfunction\nfunction\n", run [[
      local nyx = require "nyx"
      local x = nyx.ones(2)
      print(type(x.softclip))
      assert(require "nyx.example" == nyx.example)
      print(type(x.softclip))
      print(type(nyx.softclip))
    ]])
  end)

  it("pass the extension's own specs", function()
    -- busted itself comes from where the system has it.
    local output = succeed(with_tree(("busted --output=TAP --lua=%s '%s/rocks/nyx-example/spec'")
      :format(lua_54, root), ";;"))
    assert.is_nil(output:find("not ok", 1, true), output)
    assert.is_true(tonumber(output:match "1%.%.(%d+)") >= 7, output)
  end)

  it("are removed without a trace", function()
    luarocks(".", "remove --deps-mode=none nyx-example")
    luarocks(".", "remove --deps-mode=none nyx")
    local left = succeed(("find '%s' -path '*nyx*' -type f"):format(tree))
    left = left:gsub(tree:gsub("%p", "%%%0") .. "/[%w_]*%.nyx\n", "")
    assert.equal("", (left:gsub("[^\n]*script%.lua\n", "")))
  end)
end)
