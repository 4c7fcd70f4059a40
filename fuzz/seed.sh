#!/bin/sh
# Fills fuzz/corpus/TARGET with small well-formed inputs: the tests' fixtures and what the crate ships. Takes the
# `salmon` binary as its argument, which writes the Parquet and gzip seeds.
set -eu
cd "$(dirname "$0")"
salmon=$1
llama=../tests/fixtures/llama
into() { mkdir -p "corpus/$1"; }

into safetensors; cp $llama/untied/model.safetensors $llama/classifier/model.safetensors corpus/safetensors/ 2>/dev/null || true
cp $llama/classifier/model.safetensors corpus/safetensors/classifier
cp $llama/tied/model-00001-of-00004.safetensors corpus/safetensors/shard
printf '\002\0\0\0\0\0\0\0{}' > corpus/safetensors/empty
into safetensors_index; cp $llama/tied/model.safetensors.index.json corpus/safetensors_index/
into model_config
for name in untied tied classifier; do
    { cat $llama/$name/config.json; printf '\0'; cat $llama/$name/generation_config.json 2>/dev/null || printf '{}'; } > corpus/model_config/$name
done
into tokenizer
cp ../datasets/pocket/tokenizer.json corpus/tokenizer/pocket
cat > corpus/tokenizer/bytes <<'JSON'
{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Prepend","prepend":"_"},{"type":"Replace","pattern":{"String":" "},"content":"_"}]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"_"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},"model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"t":1,"h":2,"e":3,"th":4,"the":5,"<0x0A>":6},"merges":[["t","h"],["th","e"]]}}
JSON
cat > corpus/tokenizer/unigram <<'JSON'
{"version":"1.0","added_tokens":[],"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true},"post_processor":null,"decoder":{"type":"Metaspace","replacement":"_","prepend_scheme":"always","split":true},"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["_the",-1.5],["a",-2.0]],"byte_fallback":false}}
JSON
cat > corpus/tokenizer/wordpiece <<'JSON'
{"version":"1.0","added_tokens":[],"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},"model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,"vocab":{"[UNK]":0,"the":1,"##a":2}}}
JSON
into tokenizer_config
printf '{"bos_token":"<s>","eos_token":{"content":"</s>","special":true},"add_bos_token":true,"chat_template":"{{ bos_token }}{%% for m in messages %%}{{ m.content }}{%% endfor %%}"}' > corpus/tokenizer_config/text
printf '{"additional_special_tokens":["x"],"chat_template":[{"name":"default","template":"{{ messages[0].content }}"},{"name":"tool_use","template":"T"}]}' > corpus/tokenizer_config/named
into chat_template
python3 - <<'PY' 2>/dev/null || true
import json
for file in ("../tests/fixtures/llama/chat.json", "../tests/fixtures/chat/families.json"):
    for name, text in json.load(open(file, encoding="utf-8"))["templates"].items():
        open(f"corpus/chat_template/{name}", "w", encoding="utf-8").write(text)
PY
cp ../templates/*.jinja corpus/chat_template/
into adapter_config
cp $llama/adapter/adapter_config.json corpus/adapter_config/adapter; cp $llama/reward/adapter_config.json corpus/adapter_config/reward
into principles; cp ../principles/*.toml ../recipes/starter-principles.toml corpus/principles/
into salmon_toml; cp ../recipes/starter.toml ../recipes/pocket.toml ../recipes/smoke.toml corpus/salmon_toml/
into prompt_template; cp ../templates/*.jinja corpus/prompt_template/
into import_json
cat > corpus/import_json/chat <<'JSON'
[{"id": "c", "conversations": [{"from": "human", "value": "H\u00e9 \"you\" \ud83d\ude00"}, {"from": "gpt", "value": "x"}]}, {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}]
JSON
cat > corpus/import_json/lines <<'JSON'
{"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": {"message_id": "t", "text": "Why?", "role": "prompter", "lang": "en", "deleted": false, "replies": [{"message_id": "u", "text": "So.", "role": "assistant", "rank": 0, "replies": []}]}}
{"instruction": "q", "context": "c", "response": "a", "category": "open_qa"}
JSON
cat > corpus/import_json/pairs <<'JSON'
{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
{"chosen": "\n\nHuman: a\n\nAssistant: d", "rejected": "\n\nHuman: a\n\nAssistant: e"}
JSON
cat > corpus/import_json/trl <<'JSON'
{"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}
{"prompt": "q", "chosen": "a", "rejected": "b"}
JSON
printf '{"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_ratio": 3.5}\n' > corpus/import_json/shp
into import_csv
printf 'id,instruction,output\r\n1,"Two\nlines, ""quoted""",x\r\n2,Three,y\r\n' > corpus/import_csv/rfc
printf '\357\273\277q;a\n1;"2"\n' > corpus/import_csv/semicolon
into import_gzip
for file in corpus/import_json/*; do gzip -nc "$file" > "corpus/import_gzip/$(basename "$file").gz"; done
into import_parquet
head -3 ../datasets/pocket/prompts.jsonl > corpus/rows.jsonl
"$salmon" import corpus/rows.jsonl --out corpus/import_parquet/prompts.parquet > /dev/null
rm -f corpus/rows.jsonl corpus/import_parquet/*.dropped.parquet
into manifest
cat > corpus/manifest/one <<'JSON'
{"format":1,"kind":"table","name":"prompts","fingerprint":"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff","files":[{"path":"part-00000.parquet","size":4,"blake3":"00","rows":1}],"schema":[{"name":"a","type":"Utf8","nullable":true}],"lineage":{"stage":"prompts","version":1,"sql":"select 1","parameters":{"a":1},"seed":3,"inputs":{"x":"y"},"models":{},"templates":{}},"info":{"rows":1,"seconds":0.5,"started":"2026-01-01T00:00:00Z","host":"h","version":"0.1.0"},"checksum":"0000000000000000000000000000000000000000000000000000000000000000"}
JSON
into sql; for file in ../sql/*.sql ../sql/report/*.sql; do cp "$file" "corpus/sql/$(basename "$file")"; done
printf "select reward('rm', 'a'), generate('p', 'b')['response'] from (values (1)) t(x) where x > 0 order by 1 limit 2" > corpus/sql/models
printf "copy (select 1) to '/tmp/x.csv'" > corpus/sql/copy
