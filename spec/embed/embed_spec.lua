-- Nyx in C programs: installs the build into a folder of its own, builds examples/embed
-- against that with CMake and with pkg-config, and runs the programs. NYX_BUILD_DIR is the
-- build, build/release by default. Read next: examples/embed, cmake/install.cmake.
local source = debug.getinfo(1, "S").source:match "^@(.*)spec/embed/" or "./"
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

-- A folder or file seen from the folder of the source tree.
local root = succeed(("cd '%s./' && pwd"):format(source)):gsub("\n", "")
local function absolute(path)
  return path:sub(1, 1) == "/" and path or root .. "/" .. path
end
local build = absolute(os.getenv "NYX_BUILD_DIR" or "build/release")

local scores = "%(0, 0%) scores 0.0%d+\n%(1, 0%) scores 0.9%d+\n"
  .. "%(0, 1%) scores 0.9%d+\n%(1, 1%) scores 0.0%d+\n"

describe("Nyx in a C program", function()
  if not (has "cc" and has "cmake" and has "pkg-config" and has "make") then
    it("is built", function() pending "no C compiler, cmake, make or pkg-config" end)
    return
  end

  local place, prefix, libdir, lua_path

  setup(function()
    place = shell.folder()
    prefix = place .. "/installed"
    succeed(("cmake --install '%s' --prefix '%s'"):format(build, prefix))
    -- lib, or what this system calls it
    libdir = succeed(("cd '%s' && find . -name nyx.pc"):format(prefix))
      :match "^%./(.*)/pkgconfig/nyx%.pc\n$"
    lua_path = ("%s/share/lua/5.4/?.lua;%s/share/lua/5.4/?/init.lua"):format(prefix, prefix)
    succeed(("cp -r '%s/examples/embed' '%s/embed'"):format(root, place))
  end)

  teardown(function() shell.run(("rm -r '%s'"):format(place)) end)

  -- Output of a built program, run in the folder of the examples. Nothing but the installed
  -- files is offered to it.
  local function program(path, environment, arguments)
    return succeed(("cd '%s/embed' && env -u LUA_PATH -u LUA_CPATH -u LD_LIBRARY_PATH "
      .. "%s '%s/%s' %s"):format(place, environment or "", place, path, arguments or ""))
  end

  -- What an installed interpreter makes of an expression.
  local function evaluate(nyx, expression)
    shell.write(place .. "/print.lua", 'local nyx = require "nyx"\nprint(' .. expression .. ")")
    return program(nyx, nil, "../print.lua")
  end

  local function make(out, options)
    return succeed(("mkdir -p '%s/%s' && make -C '%s/embed' OUT='%s/%s' "
      .. "PKG_CONFIG_PATH='%s/%s/pkgconfig' CFLAGS='-O1 -Wall -Wextra -Werror' %s")
      :format(place, out, place, place, out, prefix, libdir, options or ""))
  end

  local function check_tensor(output)
    assert.is_truthy(output:find("loss = 2.8125\n", 1, true), output)
    assert.is_truthy(output:find("d loss / d w =\n -13.5000\n -18.0000\n -22.5000\n", 1, true),
      output)
    assert.is_truthy(output:find("as expected: matmul: inner sizes differ: (2x3) @ (2x3)", 1,
      true), output)
  end

  local function check_arena(output)
    assert.is_truthy(output:find("the last one is at %(1%.00, 5%.1%d%)\n"), output)
    assert.is_truthy(output:find("nyx.Arena of 65536 bytes: 24064 used, 41472 free, 2 buffers\n"
      .. "  position: float32 (1000x3), 12000 bytes at 0\n", 1, true), output)
  end

  local function check_host(output)
    assert.is_truthy(output:find("the host ran some jobs; the result is the same\n", 1, true),
      output)
    assert.is_truthy(output:find("beyond the limit: [^\n]*limit 16777216"), output)
    assert.is_truthy(output:find("within it: the same result\nleft: 0 bytes\n", 1, true), output)
  end

  -- Whether a program loads the installed shared library, and no other file of Nyx.
  local function libraries(path)
    local list = {}
    for line in succeed(("ldd '%s/%s'"):format(place, path)):gmatch "[^\n]+" do
      local name, file = line:match "(libnyx%S*) => (%S+)"
      if name then list[#list + 1] = succeed(("realpath '%s'"):format(file)):gsub("\n", "") end
    end
    return list
  end

  local function check_shared(path)
    local list = libraries(path)
    assert.equal(1, #list)
    assert.equal(succeed(("realpath '%s'"):format(prefix)):gsub("\n", "") .. "/" .. libdir .. "/",
      list[1]:match "^.*/")
  end

  it("installs what its users need", function()
    for _, file in ipairs { "include/nyx/nyx.h", "include/nyx/nyx_lua.h", "LIB/libnyx.so",
      "LIB/libnyx.a", "LIB/libnyx_lua5.4.a", "LIB/lua/5.4/nyx/core.so",
      "share/lua/5.4/nyx/init.lua", "share/lua/5.1/nyx/init.lua", "LIB/pkgconfig/nyx.pc",
      "LIB/pkgconfig/nyx-lua5.4.pc", "LIB/cmake/Nyx/NyxConfig.cmake", "bin/nyx" } do
      succeed(("test -e '%s/%s'"):format(prefix, (file:gsub("LIB", libdir))))
    end
    assert.equal("2.0\n", evaluate("installed/bin/nyx", "nyx.ones(2):sum():item()"))
    local bench = has "python3" and "--bench --list add_16" or "--bench add_16"
    assert.is_truthy(program("installed/bin/nyx", nil, bench):find("add_16_recording ", 1, true))
  end)

  it("builds with pkg-config and runs", function()
    make "make"
    check_tensor(program "make/tensor")
    check_host(program "make/host")
    local output = program("make/script", "LUA_PATH='" .. lua_path .. "'")
    assert.is_truthy(output:find("^" .. scores .. "$"), output)
    check_arena(program("make/arena", "LUA_PATH='" .. lua_path .. "'"))
    for _, name in ipairs { "tensor", "host", "script", "arena" } do
      check_shared("make/" .. name)
    end
  end)

  it("builds with the library inside", function()
    make("static", "STATIC=1")
    check_tensor(program "static/tensor")
    check_host(program "static/host")
    local output = program("static/script", "LUA_PATH='" .. lua_path .. "'")
    assert.is_truthy(output:find("^" .. scores .. "$"), output)
    check_arena(program("static/arena", "LUA_PATH='" .. lua_path .. "'"))
    for _, name in ipairs { "tensor", "host", "script", "arena" } do
      assert.equal(0, #libraries("static/" .. name))
    end
  end)

  it("builds with find_package and runs", function()
    succeed(("cmake -S '%s/embed' -B '%s/cmake' -DCMAKE_PREFIX_PATH='%s' "
      .. "-DCMAKE_C_FLAGS='-Wall -Wextra -Werror' && cmake --build '%s/cmake'")
      :format(place, place, prefix, place))
    check_tensor(program "cmake/tensor")
    check_tensor(program "cmake/tensor_static")
    check_host(program "cmake/host")
    local output = program("cmake/script", "LUA_PATH='" .. lua_path .. "'")
    assert.is_truthy(output:find("^" .. scores .. "$"), output)
    check_arena(program("cmake/arena", "LUA_PATH='" .. lua_path .. "'"))
    for _, name in ipairs { "tensor", "host", "script", "arena" } do
      check_shared("cmake/" .. name)
    end
    assert.equal(0, #libraries "cmake/tensor_static")
  end)

  it("works where it is moved to", function()
    succeed(("cp -r '%s' '%s/moved'"):format(prefix, place))
    assert.equal("3.0\n", evaluate("moved/bin/nyx", "nyx.ones(3):sum():item()"))
    succeed(("make -C '%s/embed' OUT='%s' PKG_CONFIG_PATH='%s/moved/%s/pkgconfig' '%s/tensor'")
      :format(place, place, place, libdir, place))
    check_tensor(program "tensor")
    local list = libraries "tensor"
    assert.is_truthy(list[1]:find("/moved/" .. libdir .. "/", 1, true), list[1])
  end)

  it("tells a host what is wrong with its script", function()
    make "make"
    local function message(text, path)
      shell.write(place .. "/wrong.lua", text)
      local code, output = shell.run(("LUA_PATH='%s' '%s/make/script' '%s'"):format(
        path or lua_path, place, place .. "/wrong.lua"))
      assert.equal(1, code)
      return output
    end
    assert.is_truthy(message("local x = = 1"):find("wrong.lua:1: unexpected symbol", 1, true))
    assert.is_truthy(message('local nyx = require "nyx"\nnyx.ones(2):matmul(nyx.ones(3))')
      :find("wrong.lua:2: matmul", 1, true))
    assert.is_truthy(message('require "nyx"\nreturn function() return 1 end')
      :find("tensor expected, got", 1, true))
    assert.is_truthy(message('require "nyx"', "/nowhere/?.lua"):find("set package.path", 1, true))
  end)

  it("survives Lua states that come and go", function()
    shell.write(place .. "/round.lua", 'local nyx = require "nyx"\n'
      .. "return nyx.ones(1000000):tanh():sum():item() > 0")
    succeed(("cc -o '%s/reopen' '%s/spec/embed/reopen.c' $(pkg-config --cflags --libs lua5.4)")
      :format(place, root))
    local output = program("reopen", ("LUA_PATH='%s' LUA_CPATH='%s/%s/lua/5.4/?.so'")
      :format(lua_path, prefix, libdir), "../round.lua")
    assert.equal("1 true\n2 true\n3 true\n4 true\n5 true\n", output)
  end)

  it("lends its threads without data races", function()
    local sanitized = absolute "build/tsan"
    if shell.run(("test -f '%s/lib/libnyx.so'"):format(sanitized)) ~= 0 then
      return pending "no build/tsan"
    end
    succeed(("cmake --install '%s' --prefix '%s/tsan'"):format(sanitized, place))
    succeed(("make -C '%s/embed' OUT='%s/tsan' PKG_CONFIG_PATH='%s/tsan/%s/pkgconfig' "
      .. "CFLAGS='-g -O1 -fsanitize=thread' '%s/tsan/host'")
      :format(place, place, place, libdir, place))
    check_host(program("tsan/host", "TSAN_OPTIONS=halt_on_error=1"))
  end)
end)
