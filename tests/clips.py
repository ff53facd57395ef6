"""A small CLIP of random weights, stored as the real ones are."""

import json

import torch

WORDS = ["a", "red", "blue", "circle", "square", "<pad>", "<unk>", "</s>", "<s>"]
SIDE = 16


def stored_clip(folder, seed: int = 0):
    """A tokenizer of words, a picture processor and a CLIP of random weights in a folder."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 7)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=16
    )
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = transformers.CLIPTextConfig(
        vocab_size=len(WORDS), max_position_embeddings=16, eos_token_id=7, pad_token_id=5, bos_token_id=8, **layers
    )
    vision = transformers.CLIPVisionConfig(image_size=SIDE, patch_size=8, **layers)
    torch.manual_seed(seed)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    does = {"do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True, "resample": 3}
    looks = {"image_processor_type": "CLIPImageProcessor", "image_mean": mean, "image_std": std, **size, **does}
    (folder / "preprocessor_config.json").write_text(json.dumps(looks))
    return model.eval(), tokenizer
