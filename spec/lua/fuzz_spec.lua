-- Some cases of spec/fuzz/binding_fuzz.lua with every test run.
local fuzz = dofile "spec/fuzz/binding_fuzz.lua"
local nyx = require "nyx"

describe("random arguments", function()
  it("do no harm", function()
    local stop = nyx.clock() + 6
    for _, seed in ipairs { 1, 20251 } do
      local failures = fuzz.run(seed, function(case)
        return case > 8000 or nyx.clock() > stop
      end)
      assert.are.same({}, failures)
    end
  end)
end)

describe("modules", function()
  it("leave the global table alone", function()
    local before = {}
    for name in next, _G do before[name] = true end
    local loaded = {}
    for name in next, package.loaded do
      if name:find("^nyx") and name ~= "nyx" and name ~= "nyx.core" then
        loaded[name], package.loaded[name] = package.loaded[name], nil
      end
    end
    local list = io.popen("ls lua/nyx/*.lua lua/nyx/*/*.lua")
    for path in list:lines() do
      local name = path:match("^lua/(.*)%.lua$"):gsub("/init$", ""):gsub("/", ".")
      if name ~= "nyx" then require(name) end
    end
    list:close()
    for name, module in next, loaded do package.loaded[name] = module end
    local new = {}
    for name in next, _G do
      if not before[name] then new[#new + 1] = name end
    end
    assert.are.same({}, new)
  end)
end)
