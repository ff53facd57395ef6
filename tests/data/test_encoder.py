"""Ready text encoders: small CLIP and T5 models of random weights, stored as the real ones are."""

import json

import numpy as np
import pytest
import torch

from osmotic.data.dataset import open_data
from osmotic.data.encoder import fit_encoder, load
from osmotic.data.errors import DataError
from osmotic.recipes.train import train
from osmotic.training.model import load as load_model
from osmotic.training.options import Options
from osmotic.training.recipe import Architecture, Recipe

transformers = pytest.importorskip("transformers")
WORDS = ["a", "red", "blue", "circle", "square", "<pad>", "<unk>", "</s>", "<s>"]
TEXTS = ["a red circle", "a blue square", "a red square", "a blue circle"]


def stored(kind: str, folder, seed: int = 0):
    """A tokenizer of words and a model of random weights in a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 7)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=16
    )
    torch.manual_seed(seed)
    if kind == "clip":
        config = transformers.CLIPTextConfig(
            vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=16, eos_token_id=7, pad_token_id=5, bos_token_id=8,
        )  # fmt: skip
        model = transformers.CLIPTextModel(config)
    else:
        config = transformers.T5Config(
            vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=5
        )
        model = transformers.T5EncoderModel(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval(), tokenizer


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_features_are_the_last_hidden_states(kind, tmp_path):
    model, tokenizer = stored(kind, tmp_path)
    encoder = fit_encoder(str(tmp_path), TEXTS)
    assert (encoder.width, encoder.length) == (16, 4)
    features, mask = encoder.encode(["a red circle", "a", ""])
    assert mask.tolist() == [[True] * 4, [True, True, False, False], [False] * 4]
    with torch.no_grad():
        alone = model(**tokenizer("a red circle", return_tensors="pt")).last_hidden_state[0].numpy()
    assert np.allclose(features[0], alone, atol=1e-5)
    padded = encoder.encode(["a"])[0][0, :2]
    assert np.allclose(features[1, :2], padded, atol=1e-6)  # neighbours do not matter
    with pytest.raises(DataError, match="shorten it"):
        encoder.prompt("a red circle a red circle")


def test_a_model_is_trained_and_drawn_by_a_ready_encoder(tmp_path):
    stored("clip", tmp_path / "clip")
    x = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    data = open_data((x, {"text": [TEXTS[i % 4] for i in range(60)]}), text_encoder=str(tmp_path / "clip"))
    assert data.told(np.arange(5))["tokens"].shape == (5, 4, 16)
    assert torch.equal(data.told(np.array([0]))["tokens"], data.told(np.array([4]))["tokens"])
    few = Options(steps=3, batch_size=8, warmup=1, checkpoint_every=3, preview_every=3, evaluate_every=3, ema=(2.0,))
    run = train(data, tmp_path / "run", Recipe(options=few, architecture=Architecture(widths=(8, 16), blocks=1)))
    model = load_model(run.directory)
    one, other = (model.sample(2, text, 2.0, steps=2) for text in ("a red circle", "a blue circle"))
    assert not torch.equal(one, other)
    with pytest.raises(DataError, match="shorten it"):
        model.sample(1, "a red circle a red circle a red circle")
    stored("clip", tmp_path / "clip", seed=1)
    load.cache_clear()
    with pytest.raises(DataError, match="another text encoder"):
        model.sample(1, "a red circle")


def test_what_is_no_encoder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no text encoder of transformers"):
        fit_encoder(str(tmp_path), TEXTS)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip_text_model"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle, perhaps")
    with pytest.raises(DataError, match="safetensors"):
        fit_encoder(str(tmp_path), TEXTS)
    with pytest.raises(DataError, match="no captions for a text encoder"):
        open_data(np.zeros((20, 8, 8), np.uint8), text_encoder=str(tmp_path))


def test_pieces_are_the_words_with_their_tokens_and_what_the_encoder_adds(tmp_path):
    stored("t5", tmp_path)
    encoder = fit_encoder(str(tmp_path), TEXTS)
    assert encoder.pieces("a Red circle") == [("a", 1), ("red", 1), ("circle", 1), ("</s>", 1)]
    assert sum(count for _, count in encoder.pieces("a red circle")) == encoder.encode(["a red circle"])[1].sum()
